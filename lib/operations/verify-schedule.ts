import type { VerifyRun, VerifyScheduleState } from '../../types/index.js'
import type { VerifySchedule as Options } from '../../types/options.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { ClosingError, OperationInProgressError, VerifyInterruptedError } from '../errors.js'
import { DueTimes } from '../schedule/due-times.js'
import type { DatabaseSet } from './database-set.js'
import { DueRuns, type ScheduleInstance } from './due-runs.js'
import { AlreadyVerifiedError, NothingToVerifyError } from './verifies.js'

/** Has the newest backup verified when that is due, unless another instance has done so: one attempt at a time. */
export class VerifySchedule extends DueRuns {
  readonly #options: Required<Options>
  #last: VerifyRun | undefined
  /** Where an attempt was interrupted. */
  #interrupted: { set: DatabaseSet; id: string; from: string } | undefined

  constructor(
    instance: ScheduleInstance,
    options: Required<Options> & { timezone: string },
    databases: DueRuns['databases']
  ) {
    super(instance, databases, new DueTimes(options.cron, options.timezone), 0)
    this.#options = options
  }

  get state(): VerifyScheduleState {
    const { cron, depth } = this.#options
    const next = this.plan.next(this.now)
    return { cron, depth, next, ...(this.#last && { last: { ...this.#last } }) }
  }

  protected override async look(): Promise<void> {
    const due = this.plan.look(this.now)
    if (due !== undefined) await this.instance.jobs.add(this.#see(due))
  }

  /** Has a backup verified for this due time, or notes why there is none. Never fails. */
  async #see(due: number): Promise<void> {
    const { depth } = this.#options
    const interrupted = this.#interrupted
    let set: DatabaseSet | undefined
    try {
      set = await this.toStart('verify')
      const resume = interrupted?.set === set ? interrupted : undefined
      const report = await set.verifyRun({ due, depth, resume })
      this.#over(due, { result: 'verified', id: report.id, good: report.good })
    } catch (error) {
      if (set && error instanceof VerifyInterruptedError)
        this.#interrupted = { set, id: error.id, from: error.position }
      this.#notVerified(due, error as Error)
    }
  }

  #notVerified(due: number, error: Error): void {
    const { events, metrics } = this.instance
    if (error instanceof NothingToVerifyError) this.#over(due, { result: 'no_backup' })
    else if (error instanceof AlreadyVerifiedError) {
      const { id, verified } = error
      metrics?.foundVerified(verified)
      this.#over(due, { result: 'verified_elsewhere', id, good: verified.good })
    } else if (error instanceof OperationInProgressError) this.plan.busy(due, this.now)
    else if (!(error instanceof ClosingError)) {
      const retryAt = this.failedAt(due, error)
      const reason = cutText(messageOf(error), MOST.message)
      this.#last = { due, at: this.now, result: 'failed', reason }
      events.emit({
        type: 'schedule_verify_failed',
        due,
        ...(retryAt !== undefined && { retryAt }),
        error
      })
    }
  }

  #over(due: number, run: Omit<VerifyRun, 'due' | 'at'>): void {
    this.plan.over(due)
    this.#interrupted = undefined
    this.#last = { due, at: this.now, ...run }
  }
}
