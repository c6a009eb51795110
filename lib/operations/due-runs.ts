import type { OperationKind } from '../../types/events.js'
import { CancelledError, ClosingError } from '../errors.js'
import type { DueTimes } from '../schedule/due-times.js'
import { Plan } from '../schedule/plan.js'
import type { CurrentDatabases } from './current-databases.js'
import type { DatabaseSet } from './database-set.js'
import type { Instance } from './instance.js'

/** What a schedule uses of its instance. */
export type ScheduleInstance = Pick<Instance, 'clock' | 'events' | 'jobs' | 'metrics'>

/** Sees to the due times of the current databases, one attempt at a time. */
export abstract class DueRuns {
  protected readonly instance: ScheduleInstance
  protected readonly databases: Pick<CurrentDatabases, 'changes' | 'toStart'>
  readonly #plan: Plan
  /** The changes of databases that the plan knows of. */
  #changes = 0
  readonly #abort = new AbortController()
  /** Absent until it has started. */
  protected startedAt: number | undefined

  constructor(instance: ScheduleInstance, databases: DueRuns['databases'], times: DueTimes, jitter: number) {
    this.instance = instance
    this.databases = databases
    this.#plan = new Plan(times, jitter)
  }

  /** The plan, which looks anew when the databases are others. */
  protected get plan(): Plan {
    const { changes } = this.databases
    if (changes !== this.#changes) {
      this.#changes = changes
      this.#plan.forget()
    }
    return this.#plan
  }

  /** Returns the current databases for an attempt, whose due time is then theirs. @throws what `databases.toStart` does */
  protected toStart(asked: OperationKind): Promise<DatabaseSet> {
    const set = this.databases.toStart(asked)
    // The call asks for the names before it waits: a change that it sees is none while the attempt runs.
    this.#changes = this.databases.changes
    return set
  }

  /** Milliseconds since the epoch. */
  protected get now(): number {
    return this.instance.clock.now()
  }

  protected get isStopped(): boolean {
    return this.#abort.signal.aborted
  }

  start(): void {
    if (this.startedAt !== undefined) return
    this.startedAt = this.now
    this.#run().catch((error: Error) => {
      if (!this.isStopped) this.instance.events.emit({ type: 'check_failed', error })
    })
  }

  /** Begins no further attempt. One that runs goes on. */
  stop(): void {
    this.#abort.abort(new ClosingError())
  }

  async #run(): Promise<void> {
    while (!this.isStopped) {
      await this.look()
      await this.instance.clock.sleep(this.plan.wait(this.now), this.#abort.signal)
    }
  }

  /** Sees to the due time that the plan tells, if there is one. Never fails. */
  protected abstract look(): Promise<void>

  /** Plans the next attempt after one that failed. @returns when that is, unless the next run comes first */
  protected failedAt(due: number, error: Error): number | undefined {
    if (!(error instanceof CancelledError || error.cause instanceof CancelledError))
      return this.plan.failed(due, this.now)
    // Do not try again what somebody cancelled.
    this.plan.over(due)
    return undefined
  }
}
