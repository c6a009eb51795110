import type { BulkResult } from '../couch/bulk-body.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { type DocumentBytes, readDocument } from '../json/document.js'

/** How often a document is deleted again that somebody else writes meanwhile. */
const ATTEMPTS = 5

/** Tells by its current version whether a document is to stay. */
export type Keep = (document: DocumentBytes) => boolean

/**
 * Deletes documents with all their conflicting revisions, and reads them back.
 * @returns how many are gone, and why the others are not
 */
export async function deleteDocuments(
  db: CouchDatabase,
  ids: readonly string[],
  keep: Keep
): Promise<{ deleted: number; failures: BulkResult[] }> {
  let left = await leavesToDelete(db, ids, keep)
  const wanted = left.size
  let failures = new Map<string, BulkResult>()
  for (let attempt = 1; left.size > 0; attempt++) {
    if (attempt > ATTEMPTS) {
      const all = [...left.keys()].map((id) => failures.get(id) ?? stillThere(id))
      return { deleted: wanted - left.size, failures: all }
    }
    failures = new Map((await deleteLeaves(db, [...left.values()].flat())).map((one) => [one.id, one]))
    left = await leavesToDelete(db, [...left.keys()], keep)
  }
  return { deleted: wanted, failures: [] }
}

/** Finds the live revisions of documents that are there, by id. Conflicting revisions go with the one that wins. */
export async function leavesToDelete(
  db: CouchDatabase,
  ids: readonly string[],
  keep: Keep
): Promise<Map<string, Revision[]>> {
  const leaves = new Map<string, Revision[]>()
  for await (const { id, doc, conflicts } of db.bulkGet(
    ids.map((id) => ({ id })),
    { attachments: false }
  )) {
    const current = doc && readDocument(doc)
    if (!current?.rev || current.deleted || keep(current)) continue
    leaves.set(
      id,
      [current.rev, ...conflicts].map((rev) => ({ id, rev }))
    )
  }
  return leaves
}

/** Deletes single revisions. @returns those that could not be deleted */
export async function deleteLeaves(db: CouchDatabase, leaves: readonly Revision[]): Promise<BulkResult[]> {
  if (leaves.length === 0) return []
  const deletions = leaves.map(({ id, rev }) =>
    Buffer.from(JSON.stringify({ _id: id, _rev: rev, _deleted: true }))
  )
  return (await db.bulkDocs(deletions)).filter(({ error }) => error !== undefined)
}

const stillThere = (id: string): BulkResult => ({
  id,
  error: 'conflict',
  reason: 'the document is there again after each deletion'
})
