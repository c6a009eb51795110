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
  /** Types of documents that one side left out, so that it is not known whether it had them. */
  leftOut: ReadonlySet<string>
  /** Returns whether one side could not read a document. */
  isUnread: (print: Fingerprint) => boolean
  /** Bytes held at a time, and documents in an index; tests take less. */
  window?: number
  indexed?: number
}

/** The documents of a partition, and what is known of their states. */
interface Pass {
  holds(print: Fingerprint): boolean
  /** Absent where the window has room for the whole held side. */
  states?: States
}

interface States {
  index: StateIndex
  /** Chunks of the streamed side with documents that the held side lacks. */
  lacking: OrdinalSet
}

/**
 * Compares one database of two backups. Holds the smaller side in memory if the window has room for it. If not, an
 * index of its documents' states finds those that may differ, and these are held a window at a time.
 */
export async function* compareSides(
  before: Side,
  after: Side,
  options: SidesOptions
): AsyncGenerator<DocumentDiff> {
  const { window = WINDOW, indexed = TABLE_DOCUMENTS, isUnread } = options
  const heldIsBefore = before.bytes <= after.bytes && before.documents <= after.documents
  const [held, streamed] = heldIsBefore ? [before, after] : [after, before]
  const comparison = new SidesComparison(held, streamed, { ...options, heldIsBefore, window })
  if (held.bytes <= window) return yield* comparison.run({ holds: (print) => !isUnread(print) })
  const count = Math.max(1, Math.ceil(held.documents / indexed))
  for (let partition = 0; partition < count; partition++) {
    const holds = (print: Fingerprint) => partitionOfPrint(print, count) === partition && !isUnread(print)
    yield* comparison.run({ holds, states: await comparison.states(holds, held.documents / count) })
  }
}

class SidesComparison {
  readonly #held: Side
  readonly #streamed: Side
  readonly #options: SidesOptions & { heldIsBefore: boolean; window: number }

  constructor(held: Side, streamed: Side, options: SidesOptions & { heldIsBefore: boolean; window: number }) {
    this.#held = held
    this.#streamed = streamed
    this.#options = options
  }

  /** Reads both sides once, and notes which documents may differ. @param expected about how many are held */
  async states(holds: Pass['holds'], expected: number): Promise<States> {
    const index = new StateIndex(expected)
    const lacking = new OrdinalSet()
    for await (const { chunk, document } of documentsOf(this.#held, () => true, holds))
      index.add(document.print, document.state, chunk)
    for await (const { chunk, document } of documentsOf(this.#streamed, () => true, holds))
      if (index.compare(document.print, document.state, chunk) === 'absent') lacking.add(chunk)
    return { index, lacking }
  }

  /** Holds as many documents as fit, and compares them with the streamed side, until all are compared. */
  async *run({ holds, states }: Pass): AsyncGenerator<DocumentDiff> {
    const index = states?.index
    const left = documentsOf(
      this.#held,
      (chunk) => index?.isLeft(chunk) ?? true,
      (print) => holds(print) && !index?.isSame(print)
    )
    try {
      for (let isFirst = true, isLast = false; !isLast; isFirst = false) {
        const window = await this.#fill(left, index)
        isLast = window.isLast
        // Documents that the held side lacks are yielded in the first round.
        const lacks = (print: Fingerprint) => isFirst && !index?.has(print)
        const wanted = (chunk: number) =>
          !states || window.chunks.has(chunk) || (isFirst && states.lacking.has(chunk))
        yield* this.#compare(window.held, wanted, holds, lacks)
      }
    } finally {
      await left.return(undefined)
    }
  }

  /** Holds documents until the window is full, and notes the chunks in which the streamed side has them. */
  async #fill(
    left: AsyncGenerator<{ document: SideDocument }>,
    index: StateIndex | undefined
  ): Promise<{ held: Map<string, Held>; chunks: OrdinalSet; isLast: boolean }> {
    const held = new Map<string, Held>()
    const chunks = new OrdinalSet()
    for (let bytes = 0; bytes < this.#options.window; ) {
      const next = await left.next()
      if (next.done) return { held, chunks, isLast: true }
      const { document } = next.value
      const copy = await document.hold()
      held.set(keyOf(document.print), copy)
      bytes += copy.bytes
      const chunk = index?.otherChunk(document.print)
      if (chunk !== undefined) chunks.add(chunk)
    }
    return { held, chunks, isLast: false }
  }

  async *#compare(
    held: Map<string, Held>,
    wanted: (chunk: number) => boolean,
    holds: Pass['holds'],
    lacks: (print: Fingerprint) => boolean
  ): AsyncGenerator<DocumentDiff> {
    const { heldIsBefore } = this.#options
    for await (const { document } of documentsOf(this.#streamed, wanted, holds)) {
      const key = keyOf(document.print)
      const copy = held.get(key)
      if (!copy && !lacks(document.print)) continue
      held.delete(key)
      const version = await document.read()
      yield* copy ? this.#changed(await copy.read(), version) : this.#alone(version, !heldIsBefore)
    }
    for (const copy of held.values()) yield* this.#alone(await copy.read(), heldIsBefore)
  }

  async *#changed(held: Comparable, streamed: Comparable): AsyncGenerator<DocumentDiff> {
    const [before, after] = this.#options.heldIsBefore ? [held, streamed] : [streamed, held]
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

/** Yields the documents that a partition holds, each valid until the next is asked for. */
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
