import type { CouchDatabase, Revision } from './database.js'
import { CouchError, malformed } from './errors.js'
import { historyOf, type Leaf } from './leaves.js'

/** Looks for another writer to give in: some two seconds, with the waits between. */
const LOOKS = 10

/**
 * Makes sure that a write accepted by some replicas only (202) stands alone: of two writers over the revision
 * `over`, the one whose version CouchDB does not show gives in. @throws CouchError (409) if taken back
 */
export async function confirmAccepted(
  db: CouchDatabase,
  { id, rev }: Revision,
  over: string | undefined
): Promise<void> {
  const isOurs = (leaf: Leaf) => historyOf(leaf).includes(rev)
  const isRival = (leaf: Leaf) =>
    !leaf.deleted && leaf.rev !== over && (over === undefined || historyOf(leaf).includes(over))
  let leaves: Leaf[] = []
  for (let look = 1; look <= LOOKS; look++) {
    leaves = (await db.leaves(id, { revs: true })).filter((leaf) => isOurs(leaf) || isRival(leaf))
    if (leaves.length > 0 && leaves.every(isOurs)) return
    if (leaves.length > 0 && !isOurs(leaves[0])) break
    await db.client.afterConflict(look)
  }
  if (leaves.length === 0) throw malformed(db.name, 'revision that was accepted')
  await db.delete(id, rev)
  throw new CouchError(`PUT /${db.name}/${id.slice(0, 120)}`, {
    status: 409,
    error: 'conflict',
    reason: 'other copies of the document have accepted another version'
  })
}
