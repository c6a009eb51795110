import type { CouchDatabase, Revision } from '../couch/database.js'
import { expected, isCouchError, isNotFound } from '../couch/errors.js'
import { headerRevisions } from './references.js'

/** Bytes of legacy backups, inside documents, from which it pays to leave them out of the feed. */
const LEGACY_BYTES = 16 * 1024 * 1024

/**
 * Finds legacy backups, up to 8 MB each, that would be read with the documents and dropped.
 * @returns revisions by id of all backups of excluded types; `undefined` when they are small
 */
export async function largeBackupsIn(
  source: CouchDatabase,
  excludeTypes: ReadonlySet<string>
): Promise<ReadonlyMap<string, string> | undefined> {
  const backups = await headerRevisions(source)
  if (!(await areLarge(source, backups))) return undefined
  const excluded = new Map<string, string>()
  for (const { id, rev } of backups) {
    // Documents of the console may have the id of a backup.
    const type = await source.type(id)
    if (type !== undefined && excludeTypes.has(type)) excluded.set(id, rev)
  }
  return excluded
}

async function areLarge(source: CouchDatabase, revisions: readonly Revision[]): Promise<boolean> {
  let bytes = 0
  for (const { id } of revisions) {
    const size = await source.size(id).catch(expected(isNotFound, 0)).catch(expected(isCouchError, undefined))
    // One whose size cannot be told must not be read with the others.
    if (size === undefined) return true
    bytes += size
    if (bytes >= LEGACY_BYTES) return true
  }
  return false
}
