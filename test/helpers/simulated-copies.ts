import { type RawDatabase, type RawDocument, withLeaf } from './raw-couch.js'

/** What was merged from one database into its copy: sequences of both, as they were then. */
interface Checkpoint {
  target: RawDatabase
  source: number
  reached: number
}

/** The databases that one node of a simulated cluster keeps. */
export class Copy {
  readonly store = new Map<string, RawDatabase>()
  #frozen: Map<string, RawDatabase> | undefined
  readonly #checkpoints = new WeakMap<RawDatabase, Checkpoint[]>()

  constructor(readonly node: number) {}

  /** What reads find. */
  get seen(): Map<string, RawDatabase> {
    return this.#frozen ?? this.store
  }

  /** Lets reads find what there is now until {@link thaw}. Writes are taken meanwhile. */
  freeze(): void {
    const still = (database: RawDatabase) => ({ ...database, docs: new Map(database.docs) })
    this.#frozen = new Map([...this.store].map(([name, database]) => [name, still(database)]))
  }

  thaw(): void {
    this.#frozen = undefined
  }

  /** Gives leaves to a database without new edits. */
  add(name: string, documents: Iterable<RawDocument>): void {
    const database = this.store.get(name)
    for (const document of database ? documents : []) merge(database!, document)
  }

  /** Gives all that came since the last time to another copy. */
  replicate(name: string, to: Copy): void {
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
   * Returns where in this copy a reader continues who has read another copy up to a sequence: after what the other had
   * from here by then.
   */
  rewind(name: string, from: Copy, sequence: number): number {
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
