import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase } from '../couch/database.js'
import { isConflict } from '../couch/errors.js'
import { DamagedBackupError } from '../errors.js'
import { MANIFEST_TYPE } from '../own-documents.js'
import { inTurns, type Steps } from '../waits/steps.js'
import { sha256Of } from './codec.js'
import { partId, TAKEN_IDS } from './ids.js'
import type { ChunkEntry, ManifestDocument, StoredDatabase } from './layout.js'

/** Most bytes of chunk entries of a database in a header, and in a manifest. */
const MOST_BYTES = 300_000
/** Share of the largest request: a header holds entries of three databases. */
const REQUEST_SHARE = 1 / 7
/** Entries that are written as text in one step. */
const STEP = 100

type Manifests = StoredDatabase['manifests']

/**
 * Stores chunk entries in manifest documents where there are too many for the header. Manifests of `known` that hold the
 * same entries are listed again. @param first number of the first new manifest
 * @returns what the header is to list, and the bytes of entries in new manifests
 */
export async function moveToManifests(
  db: CouchDatabase,
  { backup, database }: { backup: string; database: LogicalDatabase },
  entries: readonly ChunkEntry[],
  known: Manifests = [],
  first = 0
): Promise<{ lists: Pick<StoredDatabase, 'manifests' | 'chunks'>; bytes: number }> {
  const manifests: Manifests = []
  let index = first
  let bytes = 0
  const most = Math.min(MOST_BYTES, Math.floor(db.client.size.bytes * REQUEST_SHARE))
  const groups = await inTurns(groupsByBytes(entries, most))
  const last = groups.pop() as EntryGroup
  for (const { chunks, text } of groups) {
    const sha256 = sha256Of(text)
    let id = known.find((manifest) => manifest.sha256 === sha256)?.id
    if (id === undefined) {
      const manifest: ManifestDocument = { type: MANIFEST_TYPE, backup_id: backup, database, entries: text }
      index = await putManifest(db, manifest, index)
      id = partId('manifest', backup, database, index++)
      bytes += text.length
    }
    manifests.push({ id, chunks: chunks.length, sha256 })
  }
  return { lists: { manifests, chunks: last.chunks }, bytes }
}

interface EntryGroup {
  chunks: ChunkEntry[]
  /** JSON of the entries. */
  text: string
}

/** Divides entries into groups whose JSON takes about so many bytes: at least one, and the last may be empty. */
function* groupsByBytes(chunks: readonly ChunkEntry[], most: number): Steps<EntryGroup[]> {
  const groups: EntryGroup[] = []
  let group: ChunkEntry[] = []
  let texts: string[] = []
  let bytes = 0
  const close = () => {
    groups.push({ chunks: group, text: `[${texts.join(',')}]` })
    group = []
    texts = []
    bytes = 0
  }
  for (const [i, chunk] of chunks.entries()) {
    if (i % STEP === 0) yield
    const text = JSON.stringify(chunk)
    if (bytes > 0 && bytes + text.length > most) close()
    group.push(chunk)
    texts.push(text)
    bytes += text.length + 1
  }
  close()
  return groups
}

/** Stores a manifest. @returns the first number, from `from` on, whose id was free or that holds the same */
export async function putManifest(
  db: CouchDatabase,
  manifest: ManifestDocument,
  from: number
): Promise<number> {
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
  for (const manifest of stored.manifests) yield await readManifest(db, manifest)
  yield stored.chunks
}

/** Reads the entries in a manifest. @throws DamagedBackupError */
export async function readManifest(
  db: CouchDatabase,
  { id, sha256 }: Manifests[number]
): Promise<ChunkEntry[]> {
  const manifest = await db.get<ManifestDocument>(id)
  if (!manifest) throw new DamagedBackupError('manifest', id, 'is missing')
  if (typeof manifest.entries !== 'string' || sha256Of(manifest.entries) !== sha256) {
    throw new DamagedBackupError('manifest', id, 'is damaged: its digest differs')
  }
  return JSON.parse(manifest.entries) as ChunkEntry[]
}
