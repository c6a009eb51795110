import type { VerifyRun, VerifyScheduleState } from '../../types/index.js'
import type { VerifySchedule as Options } from '../../types/options.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { CancelledError, ClosingError, OperationInProgressError, VerifyInterruptedError } from '../errors.js'
import { DueTimes } from '../schedule/due-times.js'
import { Plan } from '../schedule/plan.js'
import type { DatabaseSet } from './database-set.js'
import type { Instance } from './instance.js'
import { AlreadyVerifiedError, NothingToVerifyError } from './verifies.js'

/** Has the newest backup verified when that is due, unless another instance has done so: one attempt at a time. */
export class VerifySchedule {
  readonly #instance: Instance
  readonly #options: Required<Options>
  readonly #plan: Plan
  readonly #current: () => Promise<DatabaseSet>
  readonly #abort = new AbortController()
  #started = false
  #last: VerifyRun | undefined
  /** The position at which an attempt was interrupted, and its backup. */
  #position: { id: string; from: string } | undefined

  /** @param current returns the databases of now, if nothing runs on earlier ones */
  constructor(
    instance: Instance,
    options: Required<Options> & { timezone: string },
    current: () => Promise<DatabaseSet>
  ) {
    this.#instance = instance
    this.#options = options
    this.#plan = new Plan(new DueTimes(options.cron, options.timezone), 0)
    this.#current = current
  }

  get state(): VerifyScheduleState {
    const { cron, depth } = this.#options
    const next = this.#plan.next(this.#instance.clock.now())
    return { cron, depth, next, ...(this.#last && { last: { ...this.#last } }) }
  }

  start(): void {
    if (this.#started) return
    this.#started = true
    this.#run().catch((error: Error) => {
      if (!this.#abort.signal.aborted) this.#instance.events.emit({ type: 'check_failed', error })
    })
  }

  /** Begins nothing more. A verification that runs goes on. */
  stop(): void {
    this.#abort.abort(new ClosingError())
  }

  /** Looks anew: the databases are others. */
  forget(): void {
    this.#plan.forget()
    this.#position = undefined
  }

  async #run(): Promise<void> {
    const { clock, jobs } = this.#instance
    const { signal } = this.#abort
    while (!signal.aborted) {
      const due = this.#plan.look(clock.now())
      if (due !== undefined) await jobs.add(this.#see(due))
      await clock.sleep(this.#plan.wait(clock.now()), signal)
    }
  }

  /** Has a backup verified for this due time, or notes why there is none. Never fails. */
  async #see(due: number): Promise<void> {
    const { depth } = this.#options
    try {
      const report = await (await this.#current()).verifyRun({ due, depth, resume: this.#position })
      this.#over(due, { result: 'verified', id: report.id, good: report.good })
    } catch (error) {
      this.#notVerified(due, error as Error)
    }
  }

  #notVerified(due: number, error: Error): void {
    const { clock, events, metrics } = this.#instance
    const now = clock.now()
    if (error instanceof NothingToVerifyError) this.#over(due, { result: 'no_backup' })
    else if (error instanceof AlreadyVerifiedError) {
      const { id, verified } = error
      metrics?.foundVerified(verified)
      this.#over(due, { result: 'verified_elsewhere', id, good: verified.good })
    } else if (error instanceof OperationInProgressError) this.#plan.busy(due, now)
    else if (!(error instanceof ClosingError)) {
      if (error instanceof VerifyInterruptedError) this.#position = { id: error.id, from: error.position }
      const wasCancelled = error.cause instanceof CancelledError
      // Do not try again what somebody cancelled.
      if (wasCancelled) this.#plan.over(due)
      const retryAt = wasCancelled ? undefined : this.#plan.failed(due, now)
      const reason = cutText(messageOf(error), MOST.message)
      this.#last = { due, at: now, result: 'failed', reason }
      events.emit({
        type: 'schedule_verify_failed',
        due,
        ...(retryAt !== undefined && { retryAt }),
        error
      })
    }
  }

  #over(due: number, run: Omit<VerifyRun, 'due' | 'at'>): void {
    this.#plan.over(due)
    this.#position = undefined
    this.#last = { due, at: this.#instance.clock.now(), ...run }
  }
}
