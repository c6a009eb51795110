import type { DocumentDiff } from '../../types/diff.js'
import type { Fingerprint } from '../ids/fingerprint.js'
import { OrdinalSet } from '../ids/ordinal-set.js'
import { partitionOfPrint, TABLE_DOCUMENTS } from '../restore/target-table.js'
import { sharedTurn } from '../waits/steps.js'
import { type Comparable, compareVersions, type DiffForm, onlyIn } from './compare.js'
import type { Held, Side, SideDocument } from './side.js'
import { StateIndex } from './state-index.js'

/** Bytes of documents that are held at a time, to be compared. */
const WINDOW = 12 * 1024 * 1024

interface SidesOptions extends DiffForm {
  /** Types of documents that one of the two left out: it is not known whether it had them. */
  leftOut: ReadonlySet<string>
  /** Tells of documents that one of the two could not read. */
  isUnread: (print: Fingerprint) => boolean
  /** Bytes held at a time, and documents in an index; tests take less. */
  window?: number
  indexed?: number
}

/** A partition of the documents, and which of them are to be looked at. */
interface Pass {
  holds(print: Fingerprint): boolean
  /** Absent where all of one side is held. */
  index?: StateIndex
  /** Chunks of the other side with documents that the one side lacks. */
  lacking?: OrdinalSet
}

/**
 * Compares what a backup holds of a database with what another does. The smaller side is held if it can be; if
 * not, an index of the states of its documents leaves those that differ, and these are held some at a time.
 */
export async function* compareSides(
  before: Side,
  after: Side,
  options: SidesOptions
): AsyncGenerator<DocumentDiff> {
  const { window = WINDOW, indexed = TABLE_DOCUMENTS, isUnread } = options
  const heldIsBefore = before.bytes <= after.bytes && before.documents <= after.documents
  const comparison = new SidesComparison(before, after, heldIsBefore, options, window)
  const { one } = comparison
  if (one.bytes <= window) return yield* comparison.run({ holds: (print) => !isUnread(print) })
  const count = Math.max(1, Math.ceil(one.documents / indexed))
  for (let partition = 0; partition < count; partition++) {
    const holds = (print: Fingerprint) => partitionOfPrint(print, count) === partition && !isUnread(print)
    yield* comparison.run(await comparison.index(holds, one.documents / count))
  }
}

class SidesComparison {
  /** The side of which documents are held. */
  readonly one: Side
  readonly #other: Side
  readonly #oneIsBefore: boolean
  readonly #options: SidesOptions
  readonly #window: number

  constructor(before: Side, after: Side, oneIsBefore: boolean, options: SidesOptions, window: number) {
    this.one = oneIsBefore ? before : after
    this.#other = oneIsBefore ? after : before
    this.#oneIsBefore = oneIsBefore
    this.#options = options
    this.#window = window
  }

  /** Reads both sides once, and notes which documents may differ. */
  async index(holds: Pass['holds'], expected: number): Promise<Pass> {
    const index = new StateIndex(expected)
    const lacking = new OrdinalSet()
    for await (const { chunk, document } of documentsOf(this.one, () => true, holds))
      index.add(document.print, document.state, chunk)
    for await (const { chunk, document } of documentsOf(this.#other, () => true, holds))
      if (index.compare(document.print, document.state, chunk) === 'absent') lacking.add(chunk)
    return { holds, index, lacking }
  }

  /** Holds documents of the one side, as many as fit, and compares them with the other side, until all are. */
  async *run({ holds, index, lacking }: Pass): AsyncGenerator<DocumentDiff> {
    const left = documentsOf(
      this.one,
      (chunk) => index?.isLeft(chunk) ?? true,
      (print) => holds(print) && !index?.isSame(print)
    )
    try {
      for (let wanted = lacking; ; wanted = undefined) {
        const chunks = wanted ?? new OrdinalSet()
        const { held, isLast } = await this.#fill(left, index, chunks)
        // Documents that the one side lacks are told with the first.
        const lacks = (print: Fingerprint) => (index ? wanted !== undefined && !index.has(print) : true)
        yield* this.#compare(held, (chunk) => !index || chunks.has(chunk), holds, lacks)
        if (isLast) return
      }
    } finally {
      await left.return(undefined)
    }
  }

  /** Holds documents until the window is full, and notes the chunks in which the other side has them. */
  async #fill(
    left: AsyncGenerator<{ document: SideDocument }>,
    index: StateIndex | undefined,
    chunks: OrdinalSet
  ): Promise<{ held: Map<string, Held>; isLast: boolean }> {
    const held = new Map<string, Held>()
    for (let bytes = 0; bytes < this.#window; ) {
      const next = await left.next()
      if (next.done) return { held, isLast: true }
      const { document } = next.value
      const one = await document.hold()
      held.set(keyOf(document.print), one)
      bytes += one.bytes
      const chunk = index?.otherChunk(document.print)
      if (chunk !== undefined) chunks.add(chunk)
    }
    return { held, isLast: false }
  }

  async *#compare(
    held: Map<string, Held>,
    wanted: (chunk: number) => boolean,
    holds: Pass['holds'],
    lacks: (print: Fingerprint) => boolean
  ): AsyncGenerator<DocumentDiff> {
    for await (const { document } of documentsOf(this.#other, wanted, holds)) {
      const key = keyOf(document.print)
      const one = held.get(key)
      if (!one && !lacks(document.print)) continue
      held.delete(key)
      const version = await document.read()
      yield* one ? this.#changed(await one.read(), version) : this.#alone(version, !this.#oneIsBefore)
    }
    for (const one of held.values()) yield* this.#alone(await one.read(), this.#oneIsBefore)
  }

  async *#changed(one: Comparable, other: Comparable): AsyncGenerator<DocumentDiff> {
    const [before, after] = this.#oneIsBefore ? [one, other] : [other, one]
    const found = await compareVersions(before, after, this.#options)
    if (found) yield found
  }

  async *#alone(version: Comparable, isBefore: boolean): AsyncGenerator<DocumentDiff> {
    const type = 'problem' in version ? undefined : version.document.type
    if (type !== undefined && this.#options.leftOut.has(type)) return
    yield await onlyIn(isBefore ? 'before' : 'after', version, this.#options)
  }
}

/** Returns a fingerprint as the key of a map. */
export const keyOf = ({ h, l }: Fingerprint): string => `${h >>> 0} ${l >>> 0}`

/** Yields the documents that are held by a partition, each valid until the next is asked for. */
async function* documentsOf(
  side: Side,
  wanted: (chunk: number) => boolean,
  holds: (print: Fingerprint) => boolean
): AsyncGenerator<{ chunk: number; document: SideDocument }> {
  for await (const { chunk, documents } of side.groups(wanted)) {
    for await (const group of documents) {
      for (const document of group) {
        await sharedTurn()
        if (holds(document.print)) yield { chunk, document }
      }
    }
  }
}
