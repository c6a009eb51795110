import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { isConflict } from '../couch/errors.js'
import { DamagedBackupError } from '../errors.js'
import { MANIFEST_TYPE } from '../own-documents.js'
import { sha256Of } from './codec.js'
import { partId, TAKEN_IDS } from './ids.js'
import type { ChunkEntry, ManifestDocument, StoredDatabase } from './layout.js'

/** Most chunk entries of a database in a header (about 300 bytes each); older ones move to manifests. */
const MANIFEST_CHUNKS = 1000
/** Bytes of the largest request for each of them: entries of three databases are a small part of one. */
const REQUEST_SHARE = 2048

/** Moves chunk entries to manifest documents when there are too many for the header. */
export async function moveToManifests(
  db: CouchDatabase,
  backup: string,
  database: LogicalDatabase,
  stored: StoredDatabase
): Promise<void> {
  let index = stored.manifests.length
  const most = Math.min(MANIFEST_CHUNKS, Math.floor(db.client.size.bytes / REQUEST_SHARE))
  while (stored.chunks.length > most) {
    const chunks = stored.chunks.slice(0, most)
    const entries = JSON.stringify(chunks)
    const manifest: ManifestDocument = { type: MANIFEST_TYPE, backup_id: backup, database, entries }
    index = await putManifest(db, manifest, index)
    const id = partId('manifest', backup, database, index++)
    stored.manifests.push({ id, chunks: chunks.length, sha256: sha256Of(entries) })
    stored.chunks = stored.chunks.slice(most)
  }
}

/** @returns the first number, from `from` on, whose id was free */
async function putManifest(db: CouchDatabase, manifest: ManifestDocument, from: number): Promise<number> {
  for (let index = from; ; index++) {
    const id = partId('manifest', manifest.backup_id, manifest.database, index)
    try {
      await db.put({ ...manifest, _id: id })
      return index
    } catch (error) {
      if (!isConflict(error) || index - from >= TAKEN_IDS) throw error
      // Ours when a reply was lost; a document of the console keeps its id.
      const existing = await db.get<ManifestDocument>(id)
      if (existing?.type === MANIFEST_TYPE && existing.entries === manifest.entries) return index
    }
  }
}

/** Reads the entries of all chunks of one database, in order. @throws DamagedBackupError */
export async function readEntries(db: CouchDatabase, stored: StoredDatabase): Promise<ChunkEntry[]> {
  const all: ChunkEntry[] = []
  for await (const entries of entryGroups(db, stored)) for (const entry of entries) all.push(entry)
  return all
}

/** Reads the entries of all chunks of one database, in order, a manifest at a time. @throws DamagedBackupError */
export async function* entryGroups(
  db: CouchDatabase,
  stored: StoredDatabase
): AsyncGenerator<readonly ChunkEntry[]> {
  for (const { id, sha256 } of stored.manifests) {
    const manifest = await db.get<ManifestDocument>(id)
    if (!manifest) throw new DamagedBackupError('manifest', id, 'is missing')
    if (typeof manifest.entries !== 'string' || sha256Of(manifest.entries) !== sha256) {
      throw new DamagedBackupError('manifest', id, 'is damaged: its digest differs')
    }
    yield JSON.parse(manifest.entries) as ChunkEntry[]
  }
  yield stored.chunks
}
