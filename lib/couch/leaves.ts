import { type DocumentBytes, documentSteps } from '../json/document.js'
import type { Steps } from '../waits/steps.js'

/** One of the newest revisions of a document: conflicts and lagging replicas make several. */
export interface Leaf {
  rev: string
  deleted: boolean
  doc: Record<string, unknown>
}

/**
 * Returns the leaf that CouchDB shows (live, longest history, last digest), and other live revisions; or
 * `null` (https://docs.couchdb.org/en/stable/replication/conflicts.html).
 */
export function* winnerOf(
  leaves: readonly Uint8Array[]
): Steps<{ doc: Uint8Array | null; conflicts: string[] }> {
  if (leaves.length < 2) return { doc: leaves[0] ?? null, conflicts: [] }
  const documents: DocumentBytes[] = []
  for (const leaf of leaves) documents.push(yield* documentSteps(leaf))
  const winner = documents.reduce((best, other) => (wins(other, best) ? other : best))
  const others = documents.filter((document) => document !== winner && !document.deleted)
  return { doc: winner.bytes, conflicts: others.map(({ rev }) => rev as string) }
}

/** Sorts leaves: the one that CouchDB shows as the document comes first. */
export function sortLeaves<T extends LeafRevision>(leaves: readonly T[]): T[] {
  return [...leaves].sort((a, b) => (wins(a, b) ? -1 : 1))
}

interface LeafRevision {
  rev?: string
  deleted: boolean
}

function wins(a: LeafRevision, b: LeafRevision): boolean {
  if (a.deleted !== b.deleted) return b.deleted
  const [generationA, digestA] = partsOf(a)
  const [generationB, digestB] = partsOf(b)
  return generationA === generationB ? Buffer.compare(digestA, digestB) > 0 : generationA > generationB
}

/** Returns what CouchDB compares: a digest of 32 hexadecimal digits as 16 bytes, any other as its text. */
function partsOf({ rev = '' }: LeafRevision): [generation: bigint, digest: Buffer] {
  const dash = rev.indexOf('-')
  const digest = rev.slice(dash + 1)
  return [
    BigInt(rev.slice(0, Math.max(0, dash))),
    Buffer.from(digest, /^[0-9a-f]{32}$/i.test(digest) ? 'hex' : 'utf8')
  ]
}

/** Returns the revisions that led to a leaf that was read with `revs`, its own first. */
export function historyOf({ doc }: Leaf): string[] {
  const { start = 0, ids = [] } = (doc._revisions ?? {}) as { start?: number; ids?: string[] }
  return ids.map((digest, at) => `${start - at}-${digest}`)
}
