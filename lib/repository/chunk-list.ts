import type { OrdinalSet } from '../ids/ordinal-set.js'
import type { Steps } from '../waits/steps.js'
import { type ChunkEntry, isSmall, liveBytes, liveDocuments, nameOf, sum } from './layout.js'
import { deadLinesOf, encodeDead } from './line-set.js'

/**
 * Returns how many small chunks may be listed: each costs a request, and as much time to read as up to half of a usual
 * one, so beside few chunks they have to be few.
 */
const mostSmall = (others: number): number => Math.min(8, Math.max(2, Math.floor(others / 2)))

interface ListedChunk {
  entry: ChunkEntry
  /** Lines that do not count, read from the entry when they are first needed. */
  dead?: OrdinalSet
  /** Bytes of the dead lines. */
  raw: number
}

/** The chunks that a backup is to list, by name: those of its base, and its own. Knows which of their lines count. */
export class ChunkList {
  readonly #listed = new Map<string, ListedChunk>()

  constructor(entries: readonly ChunkEntry[] = []) {
    this.add(entries)
  }

  add(entries: readonly ChunkEntry[]): void {
    for (const entry of entries) this.#listed.set(nameOf(entry), { entry, raw: entry.dead?.raw ?? 0 })
  }

  has(chunk: string): boolean {
    return this.#listed.has(chunk)
  }

  remove(chunk: string): void {
    this.#listed.delete(chunk)
  }

  /** Notes that a line does not count, unless that is known. @param length its bytes with its end */
  drop(chunk: string, line: number, length: number): void {
    const listed = this.#listed.get(chunk)
    if (!listed) return
    listed.dead ??= deadLinesOf(listed.entry)
    if (line >= listed.entry.docs || listed.dead.has(line)) return
    listed.dead.add(line)
    listed.raw += listed.entry.large === undefined ? length : listed.entry.raw
  }

  /** Enters what does not count in the entries, and removes chunks of which no line counts. */
  *settle(): Steps<void> {
    for (const [id, listed] of this.#listed) {
      if (listed.dead === undefined) continue
      listed.entry = entryOf(listed, listed.dead)
      listed.dead = undefined
      if (liveDocuments(listed.entry) === 0) this.#listed.delete(id)
      yield
    }
  }

  /** Returns the entries, in order, as of the last {@link settle}. */
  get entries(): ChunkEntry[] {
    return [...this.#listed.values()].map(({ entry }) => entry)
  }

  /**
   * Chooses the chunks to write anew: those that waste most, until no more than a share of all bytes is waste,
   * and all small ones when they are many beside the others.
   * @param usual bytes of most chunks
   */
  toRewrite(share: number, usual: number): ChunkEntry[] {
    const all = this.entries
    // These cannot be joined where a server takes no larger chunks.
    const usualOf = ({ whole, raw }: ChunkEntry) => (whole ? raw : usual)
    const entries = all.filter(({ large }) => large === undefined)
    const chosen = new Set<ChunkEntry>()
    const raw = { all: sum(all, ({ raw }) => raw), dead: sum(all, deadBytes) }
    // Dead lines may compress worse than the rest.
    const stored = { all: sum(all, ({ stored }) => stored), dead: sum(all, deadStored) }
    for (const entry of entries.toSorted((a, b) => wasteOf(b) - wasteOf(a))) {
      if (raw.dead <= raw.all * share && stored.dead <= stored.all * share) break
      chosen.add(entry)
      raw.all -= deadBytes(entry)
      raw.dead -= deadBytes(entry)
      stored.all -= deadStored(entry)
      stored.dead -= deadStored(entry)
    }
    const small = entries.filter((entry) => chosen.has(entry) || isSmall(liveBytes(entry), usualOf(entry)))
    if (small.length > mostSmall(all.length - small.length)) for (const entry of small) chosen.add(entry)
    return entries.filter((entry) => chosen.has(entry))
  }
}

const entryOf = ({ entry, raw }: ListedChunk, dead: OrdinalSet): ChunkEntry =>
  dead.size > 0 ? { ...entry, dead: encodeDead(dead, raw, entry.docs) } : entry

const deadBytes = ({ dead }: ChunkEntry): number => dead?.raw ?? 0

/** Returns about how many stored bytes of a chunk do not count. */
const deadStored = (entry: ChunkEntry): number => entry.stored * wasteOf(entry)

const wasteOf = (entry: ChunkEntry): number => deadBytes(entry) / entry.raw
