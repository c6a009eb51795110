import type { ScheduledRun, ScheduleState } from '../../types/index.js'
import type { ScheduleOptions } from '../../types/options.js'
import { cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { ClosingError, OperationInProgressError } from '../errors.js'
import { DueTimes } from '../schedule/due-times.js'
import { NotNeededError } from './backups.js'
import type { DatabaseSet } from './database-set.js'
import { DueRuns, type ScheduleInstance } from './due-runs.js'

/** Makes the backups of the option `schedule`, unless another instance has made them: one attempt at a time. */
export class Schedule extends DueRuns {
  readonly #options: Required<Omit<ScheduleOptions, 'verify'>>
  readonly #after: (set: DatabaseSet, gap: number) => Promise<unknown>
  readonly #times: DueTimes
  #last: ScheduledRun | undefined
  /** A due time that another operation keeps waiting. */
  #kept: { due: number; error: Error } | undefined

  /**
   * @param after is called after each run that has a backup, with the usual milliseconds between two runs; its
   * failure is told, and no failure of the backup
   */
  constructor(
    instance: ScheduleInstance,
    options: Required<Omit<ScheduleOptions, 'verify'>>,
    databases: DueRuns['databases'],
    after: (set: DatabaseSet, gap: number) => Promise<unknown>
  ) {
    const times = new DueTimes(options.cron, options.timezone)
    super(instance, databases, times, options.jitter)
    this.#options = options
    this.#times = times
    this.#after = after
  }

  get state(): ScheduleState {
    const { cron, timezone } = this.#options
    const next = this.plan.next(this.now)
    return { cron, timezone, next, ...(this.#last && { last: { ...this.#last } }) }
  }

  /**
   * Yields when backups are made from `now` on, as if each succeeds at once, without an end.
   * @param newest when the newest good one began: runs that it makes needless are left out
   */
  *comingRuns(now: number, newest = Number.NEGATIVE_INFINITY): Generator<number> {
    let last = newest
    for (let run = this.plan.next(now); Number.isFinite(run); run = this.#times.after(run)) {
      if (run - last < this.#options.unlessYoungerThan) continue
      last = Math.max(run, now)
      yield last
    }
  }

  protected override async look(): Promise<void> {
    const { jobs, metrics } = this.instance
    const due = this.plan.look(this.now)
    this.#giveUpKept()
    if (due !== undefined) await jobs.add(this.#see(due))
    metrics?.scheduledFor(this.plan.next(this.now))
  }

  /** Has a backup for this due time, or notes why there is none. Never fails. */
  async #see(due: number): Promise<void> {
    const { unlessYoungerThan } = this.#options
    let id: string | undefined
    let set: DatabaseSet | undefined
    try {
      set = await this.toStart('backup')
      const started = await set.startRun({ due, unlessYoungerThan })
      id = started.id
      await started.finished
      this.#over(due, 'made', id)
      await this.#follow(id, set)
    } catch (error) {
      this.#notMade(due, error as Error, id)
      // The instance that made it may have died before it pruned. A start alone is no reason to prune.
      if (set && error instanceof NotNeededError && due >= (this.startedAt as number))
        await this.#follow(error.id, set)
    }
  }

  #notMade(due: number, error: Error, id?: string): void {
    if (error instanceof NotNeededError) {
      const { reason, id } = error
      this.#over(due, reason === 'younger' ? 'skipped' : reason, id)
      this.instance.events.emit({ type: 'schedule_skipped', due, reason, id })
    } else if (error instanceof OperationInProgressError) {
      this.plan.busy(due, this.now)
      this.#kept = { due, error }
    } else if (!(error instanceof ClosingError)) {
      this.#failed(due, error, { id, retryAt: this.failedAt(due, error) })
    }
  }

  /** Gives up a due time that an operation has kept waiting until the next. */
  #giveUpKept(): void {
    const kept = this.#kept
    const { pending } = this.plan
    if (!kept || kept.due === pending) return
    this.#kept = undefined
    // Unless the clock was set back: then it comes again.
    if (pending !== undefined && pending > kept.due) this.#failed(kept.due, kept.error, {})
  }

  #over(due: number, result: 'made' | 'made_elsewhere' | 'skipped', id: string): void {
    const at = this.now
    this.plan.over(due)
    this.#kept = undefined
    this.#last = { due, at, result, id }
    this.instance.metrics?.scheduleWorked(at)
  }

  #failed(due: number, error: Error, about: { id?: string; retryAt?: number }): void {
    const reason = cutText(messageOf(error), MOST.message)
    const { id, retryAt } = about
    const known = { due, ...(id !== undefined && { id }) }
    this.#last = { ...known, at: this.now, result: 'failed', reason }
    this.instance.events.emit({
      type: 'schedule_failed',
      ...known,
      ...(retryAt !== undefined && { retryAt }),
      error
    })
  }

  async #follow(id: string, set: DatabaseSet): Promise<void> {
    if (this.isStopped) return
    try {
      await this.#after(set, this.#times.gapBefore(this.now))
    } catch (error) {
      // The next run prunes, if the other operation is not a pruning itself.
      if (error instanceof OperationInProgressError) return
      if (this.#last?.id === id) this.#last.pruningError = cutText(messageOf(error), MOST.message)
      this.instance.events.emit({ type: 'schedule_pruning_failed', id, error: error as Error })
    }
  }
}
