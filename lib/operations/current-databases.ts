import type { DatabaseNames } from '../../types/databases.js'
import type { OperationKind } from '../../types/events.js'
import { DatabaseSet } from './database-set.js'
import type { Instance } from './instance.js'

/** Knows the databases by the names of now, and those by earlier names while operations on them go on. */
export class CurrentDatabases {
  readonly #instance: Instance
  readonly #names: () => Required<DatabaseNames>
  readonly #sets = new Map<string, DatabaseSet>()
  #current: DatabaseSet | undefined
  #changes = 0

  /** @param names returns those of now @throws HostValueError when the host names none that can be used */
  constructor(instance: Instance, names: () => Required<DatabaseNames>) {
    this.#instance = instance
    this.#names = names
  }

  /** How often other databases have become the current ones. */
  get changes(): number {
    return this.#changes
  }

  get all(): readonly DatabaseSet[] {
    return [...this.#sets.values()]
  }

  /** Returns the current databases. @throws HostValueError */
  now(): DatabaseSet {
    const names = this.#names()
    const key = JSON.stringify(Object.entries(names).sort())
    const now = this.#sets.get(key) ?? new DatabaseSet(this.#instance, names)
    if (now !== this.#current) this.#changeTo(key, now)
    return now
  }

  /** Returns the current databases. @throws OperationInProgressError while something runs on earlier ones */
  async toStart(asked: OperationKind): Promise<DatabaseSet> {
    const now = this.now()
    for (const former of this.#sets.values()) if (former !== now) await former.refuseIfBusy(asked)
    return now
  }

  #changeTo(key: string, now: DatabaseSet): void {
    this.#current?.housekeeping.stop()
    for (const [other, { busy }] of this.#sets) if (!busy) this.#sets.delete(other)
    this.#sets.set(key, now)
    this.#current = now
    this.#changes++
  }
}
