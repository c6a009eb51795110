import { type RawDatabase, type RawDocument, withLeaf } from './raw-couch.js'

/** A merge from one replica into another: the sequences of both at that time. */
interface Checkpoint {
  target: RawDatabase
  source: number
  reached: number
}

/** The databases that one node of a simulated cluster keeps. */
export class Replica {
  readonly store = new Map<string, RawDatabase>()
  #frozen: Map<string, RawDatabase> | undefined
  readonly #checkpoints = new WeakMap<RawDatabase, Checkpoint[]>()

  constructor(readonly node: number) {}

  /** Returns the databases as reads find them. */
  get seen(): Map<string, RawDatabase> {
    return this.#frozen ?? this.store
  }

  /** Lets reads find the present content until {@link thaw}, while writes take effect. */
  freeze(): void {
    const still = (database: RawDatabase) => ({ ...database, docs: new Map(database.docs) })
    this.#frozen = new Map([...this.store].map(([name, database]) => [name, still(database)]))
  }

  thaw(): void {
    this.#frozen = undefined
  }

  /** Merges documents into a database, with the revisions that they have. */
  add(name: string, documents: Iterable<RawDocument>): void {
    const database = this.store.get(name)
    for (const document of database ? documents : []) merge(database!, document)
  }

  /** Merges all changes since the last time into another replica. */
  replicate(name: string, to: Replica): void {
    const [source, target] = [this.store.get(name), to.store.get(name)]
    if (!source || !target) return
    const since = this.#since(source, target).at(-1)?.source ?? 0
    to.add(
      name,
      [...source.docs.values()].filter(({ seq }) => seq > since)
    )
    const checkpoint = { target, source: source.seq, reached: target.seq }
    this.#checkpoints.set(source, [...(this.#checkpoints.get(source) ?? []), checkpoint])
  }

  /**
   * Returns the sequence at which this replica continues for a reader that has read another replica up to `sequence`: after
   * the changes that the other replica had received from this one by then.
   */
  rewind(name: string, from: Replica, sequence: number): number {
    const [source, target] = [this.store.get(name), from.store.get(name)]
    if (!source || !target) return 0
    return this.#since(source, target).findLast(({ reached }) => reached <= sequence)?.source ?? 0
  }

  #since(source: RawDatabase, target: RawDatabase): Checkpoint[] {
    return (this.#checkpoints.get(source) ?? []).filter((checkpoint) => checkpoint.target === target)
  }
}

function merge(database: RawDatabase, { id, rawId, leaves }: RawDocument): void {
  const before = database.docs.get(id)?.leaves ?? []
  const after = leaves.reduce(withLeaf, before)
  if (after !== before) database.docs.set(id, { id, rawId, leaves: after, seq: ++database.seq })
}
