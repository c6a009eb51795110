import { expected } from '../couch/errors.js'
import { ClosingError, OperationInProgressError } from '../errors.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { Leftovers } from './leftovers.js'
import { isOneOf, type Lifecycle } from './lifecycle.js'
import type { Outbox } from './outbox.js'
import type { Prunes } from './prunes.js'

/** Milliseconds between two looks at a lease. */
const LOOK_AGAIN = 100

/** Looks, at the start and from time to time, for what other instances have left or done. */
export class Housekeeping {
  readonly #instance: Instance
  readonly #lifecycle: Lifecycle
  readonly #outbox: Outbox
  readonly #leftovers: Leftovers
  readonly #prunes: Prunes
  readonly #newest: NewestBackup
  #timer: NodeJS.Timeout | undefined
  #staleTimer: NodeJS.Timeout | undefined
  #watchesNewest = false
  #isCompleting = false

  constructor(
    instance: Instance,
    lifecycle: Lifecycle,
    { outbox, leftovers, prunes }: { outbox: Outbox; leftovers: Leftovers; prunes: Prunes },
    databases: Databases
  ) {
    this.#instance = instance
    this.#lifecycle = lifecycle
    this.#outbox = outbox
    this.#leftovers = leftovers
    this.#prunes = prunes
    this.#newest = new NewestBackup(databases)
  }

  start(): void {
    if (this.#timer) return
    this.#watchesNewest = false
    const { lease } = this.#instance.options.timeouts
    this.#timer = setInterval(() => this.#run(() => this.#check()), lease)
    this.#timer.unref()
    this.#run(() => this.#check())
  }

  stop(): void {
    clearInterval(this.#timer)
    clearTimeout(this.#staleTimer)
    this.#timer = undefined
  }

  #run(check: () => Promise<void>): void {
    const { jobs, events } = this.#instance
    const told = check().catch((error: Error) => {
      events.emit({ type: 'check_failed', error })
    })
    void jobs.add(told)
  }

  /** Makes all checks, even if some fail. */
  async #check(): Promise<void> {
    const { metrics } = this.#instance
    const looks = [
      () => this.#recover(),
      () => this.#outbox.sendOverdue(),
      async () => metrics?.foundBackup(await this.#newest.endedAt()),
      () => this.#failLate(),
      () => this.#completeRemoval()
    ]
    const failures: unknown[] = []
    for (const look of looks) await look().catch((error: unknown) => failures.push(error))
    if (failures.length > 0) throw failures[0]
  }

  /** Recovers, and looks again as soon as the lease that was found can be stale. */
  async #recover(): Promise<void> {
    const staleIn = await this.#lifecycle.recover()
    if (staleIn === undefined || !this.#timer) return
    clearTimeout(this.#staleTimer)
    this.#staleTimer = setTimeout(() => this.#run(() => this.#recover()), Math.max(LOOK_AGAIN, staleIn))
    this.#staleTimer.unref()
  }

  async #failLate(): Promise<void> {
    if (!this.#watchesNewest) await this.#leftovers.watchNewest()
    this.#watchesNewest = true
    for await (const { id, isLate } of this.#leftovers.late())
      await this.#lifecycle.failAgain(
        { kind: 'backup', id },
        'interrupted: it was not seen to its end',
        isLate
      )
  }

  /** Completes a removal of backups that was interrupted, unless something else runs now. */
  async #completeRemoval(): Promise<void> {
    // One may take longer than the time between two checks.
    const completion = this.#isCompleting ? undefined : this.#prunes.completion()
    if (!completion) return
    this.#isCompleting = true
    try {
      const refused = expected(isOneOf(OperationInProgressError, ClosingError), undefined)
      const begun = await this.#lifecycle.run(completion).catch(refused)
      await begun?.finished
    } finally {
      this.#isCompleting = false
    }
  }
}

/** Finds out when the newest complete backup of the console ended. Reads a header only once it has ended. */
class NewestBackup {
  readonly #databases: Databases
  /** The newest backup that is not in progress. */
  #settled: string | undefined
  #endedAt: number | undefined

  constructor(databases: Databases) {
    this.#databases = databases
  }

  /** @returns milliseconds since the epoch; `undefined` when there is none */
  async endedAt(): Promise<number | undefined> {
    const { repository } = this.#databases
    const owner = await this.#databases.owner()
    let settled: string | undefined
    for (const id of (await repository.list()).toReversed()) {
      if (id === this.#settled) break
      const loaded = await repository.load(id)
      if (!loaded?.isOf(owner) || loaded.state === 'running') continue
      settled ??= id
      if (loaded.state === 'failed') continue
      this.#endedAt = loaded.endedAt
      break
    }
    this.#settled = settled ?? this.#settled
    return this.#endedAt
  }
}
