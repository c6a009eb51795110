import { createHash } from 'node:crypto'
import { type Fingerprint, fingerprint } from './fingerprint.js'
import type { ChunkEntry } from './layout.js'

const DELETED = -1
const HASHES = 7
const BITS_PER_ID = 32
const LARGEST = 2 ** 27

/**
 * Tells which copy of a document is the last, for streams in which nearly every document comes once.
 *
 * A Bloom filter of fixed size finds ids that may have come before; only those are remembered, with the ordinal of
 * their last copy. An id remembered by mistake does no harm: its only copy is its last. So memory does not depend on
 * the number of documents, only on how many come again.
 */
export class CopyIndex {
  readonly #filter: Uint8Array
  readonly #mask: number
  readonly #last = new Map<string, number>()
  #copies = 0

  /** @param expected about how many documents will come */
  constructor(expected: number) {
    let bits = 2 ** 16
    while (bits < expected * BITS_PER_ID && bits < LARGEST) bits *= 2
    this.#filter = new Uint8Array(bits / 8)
    this.#mask = bits - 1
  }

  /** Copies noted so far; the next one's ordinal. */
  get copies(): number {
    return this.#copies
  }

  /** Notes the next copy of a document and returns its ordinal. */
  note(id: string): number {
    const ordinal = this.#copies++
    if (this.#visit(fingerprint(id), true)) this.#last.set(id, ordinal)
    return ordinal
  }

  /** Notes that a document was deleted; copies noted before do not count. */
  noteDeleted(id: string): void {
    if (this.#visit(fingerprint(id), false)) this.#last.set(id, DELETED)
  }

  /** Ids that may have come more than once, with the ordinal of the last copy, or -1 for deleted. */
  get repeated(): Map<string, number> {
    return this.#last
  }

  isLast(id: string, ordinal: number): boolean {
    return isLastCopy(this.#last, id, ordinal)
  }

  /** @returns whether the id may have been added before */
  #visit({ h, l }: Fingerprint, add: boolean): boolean {
    let known = true
    for (let i = 0; i < HASHES; i++) {
      const bit = (l + Math.imul(i, h | 1)) & this.#mask
      const byte = bit >>> 3
      const flag = 1 << (bit & 7)
      if ((this.#filter[byte] & flag) === 0) {
        known = false
        if (!add) return false
        this.#filter[byte] |= flag
      }
    }
    return known
  }
}

/** Whether the copy with this ordinal is the one that counts. */
export function isLastCopy(repeated: ReadonlyMap<string, number>, id: string, ordinal: number): boolean {
  const last = repeated.get(id)
  return last === undefined || last === ordinal
}

/** Bytes of JSON that an id may take in a header: entries of a thousand chunks stand in it. */
const MAX_KEY = 512
/** No id begins with it. */
const DIGEST = '_sha256/'

/** How a chunk's entry names the one document in it: by its id, or by a digest of one that is long. */
export function largeKey(id: string): string {
  if (Buffer.byteLength(JSON.stringify(id)) <= MAX_KEY) return id
  return DIGEST + createHash('sha256').update(id).digest('hex')
}

/** Like {@link isLastCopy}, for the copy in a chunk of one large document. */
export function isLastLarge(
  repeated: ReadonlyMap<string, number>,
  { large = '' }: Pick<ChunkEntry, 'large'>,
  ordinal: number
): boolean {
  if (!large.startsWith(DIGEST)) return isLastCopy(repeated, large, ordinal)
  for (const [id, last] of repeated) if (largeKey(id) === large) return last === ordinal
  return true
}
