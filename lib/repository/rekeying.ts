import type { LogicalDatabase } from '../../types/databases.js'
import type { ReplicasWatch } from '../couch/replicas.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import {
  BackupNotFoundError,
  DamagedBackupError,
  KeyUnavailableError,
  NotSealedBackupError,
  UnknownLayoutError,
  WrongKeyError
} from '../errors.js'
import { BACKUP_TYPE, stampIn } from '../own-documents.js'
import { SEAL_BYTES, type SealingKey } from '../seal/sealing-key.js'
import { atATime } from '../waits/at-a-time.js'
import { putChunk } from './chunk-attempt.js'
import { ChunkPlaces } from './chunk-places.js'
import { ChunkReader } from './chunk-reader.js'
import { openLarge, sealLarge } from './chunk-seal.js'
import { CHUNKS_AT_A_TIME } from './chunk-transfer.js'
import { type OpenedHeader, openHeader, sealHeader } from './header-seal.js'
import { makerOf, numberOf, partRanges } from './ids.js'
import {
  type ChunkEntry,
  type Head,
  type HeaderDocument,
  nameOf,
  type Store,
  type StoredDatabase,
  sum
} from './layout.js'
import { LoadedBackup } from './loaded-backup.js'
import { entryGroups, moveToManifests, readEntries } from './manifests.js'
import type { Owner } from './owner.js'
import { allParts, deleteParts, ownParts } from './part-documents.js'
import { readHeader } from './read-header.js'
import { headerRevisions, References } from './references.js'
import { type PartCount, requireNoneStarted } from './removal.js'

/** Where a chunk lies that was sealed anew, and what its entry tells of it. */
type ResealedChunk = Pick<ChunkEntry, 'id' | 'rev' | 'stored' | 'sha256' | 'sealed' | 'large'>

/** A backup that could not be sealed anew, and why. */
interface LeftBackup {
  id: string
  reason: string
}

export interface Rekeyed {
  rekeyed: string[]
  unchanged: number
  left: LeftBackup[]
  chunks: number
  bytes: number
  deleted: PartCount
}

/** Thrown for a backup of a layout that knows no seals. */
class NotSealableError extends Error {}

/** The work done for one backup. */
interface RekeyedBackup {
  id: string
  chunks: number
  bytes: number
}

/** The means by which the chunks of a database are read, and sealed anew. */
interface DatabaseSealing {
  database: LogicalDatabase
  opened: OpenedHeader
  places: ChunkPlaces
  reader: ChunkReader
}

export interface RekeyingOptions {
  key: SealingKey
  /** The replicas of a cluster, which have agreed. */
  replicas?: ReplicasWatch | undefined
  /** Backups of others are theirs to seal. */
  owner: Owner
  onBackup(backup: RekeyedBackup): void
}

/**
 * Seals all backups of a console with one key: their chunks, each once, as new ones, then their headers. Deletes
 * parts that no header lists any more at the end. Every header lists chunks that are there, wherever that ends. Run it
 * under the lease.
 */
export class Rekeying {
  readonly #store: Store
  readonly #options: RekeyingOptions
  /** Chunks that were sealed anew, by their names: some 300 bytes for each. */
  readonly #resealed = new Map<string, ResealedChunk>()
  /** Manifests that were written last, by database: the next backup may list the same entries. */
  readonly #manifests = new Map<LogicalDatabase, StoredDatabase['manifests']>()
  readonly #left: LeftBackup[] = []
  #chunks = 0
  #bytes = 0

  constructor(store: Store, options: RekeyingOptions) {
    this.#store = store
    this.#options = options
  }

  async run(): Promise<Rekeyed> {
    const ids = (await headerRevisions(this.#store.db)).map(({ id }) => id)
    ids.sort((a, b) => (stampIn(a) < stampIn(b) ? -1 : 1))
    const own: string[] = []
    const toSeal: string[] = []
    for (const id of ids) {
      const head = await this.#find(id)
      if (!head) continue
      own.push(id)
      if (this.#isSealed(head)) await this.#orLeave(id, () => this.#notePlaces(head))
      else if (!head.in_progress) toSeal.push(id)
    }
    const rekeyed: string[] = []
    for (const id of toSeal) if (await this.#orLeave(id, () => this.#seal(id))) rekeyed.push(id)
    const deleted = await this.#sweep(new Set(own))
    return {
      rekeyed,
      unchanged: own.length - toSeal.length,
      left: this.#left,
      chunks: this.#chunks,
      bytes: this.#bytes,
      deleted
    }
  }

  /** Reads a header of this console, if there is one. */
  async #find(id: string): Promise<Head | null> {
    const head = await readHeader(this.#store.db, id)
    return head && new LoadedBackup(this.#store, head).isOf(this.#options.owner) ? head : null
  }

  /** Returns whether a header says that all is sealed with the key. */
  #isSealed({ storage }: Head): boolean {
    const { key } = this.#options
    const ids = Object.keys(storage?.seal?.keys ?? {})
    return storage?.seal?.key === key.id && ids.length === 1 && ids[0] === key.id
  }

  /** Does what one backup's state may keep from being done. @returns whether it was done */
  async #orLeave(id: string, work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work()
      return true
    } catch (error) {
      if (!isOfBackup(error)) throw error
      this.#left.push({ id, reason: error.message })
      return false
    }
  }

  /** Notes where the chunks lie that an earlier run has sealed, as far as a sealed header says so. */
  async #notePlaces(head: Head): Promise<void> {
    await openHeader(head, this.#store.keyring)
    for (const stored of Object.values(head.storage?.databases ?? {})) {
      this.#note(stored.index ?? [])
      for await (const entries of entryGroups(this.#store.db, stored)) this.#note(entries)
    }
  }

  #note(entries: readonly ChunkEntry[]): void {
    for (const entry of entries) if (entry.was !== undefined) this.#resealed.set(entry.was, resealedIn(entry))
  }

  async #seal(id: string): Promise<void> {
    const head = await this.#find(id)
    if (!head) return
    const loaded = new LoadedBackup(this.#store, head)
    loaded.checkReadable()
    if (!loaded.isCurrent)
      throw new NotSealableError(`backup "${id}" is of an earlier layout, which cannot be sealed`)
    const opened = await openHeader(head, this.#store.keyring)
    const before = { chunks: this.#chunks, bytes: this.#bytes }
    const databases: HeaderDocument['storage']['databases'] = {}
    const dbs = { ...opened.dbs }
    for (const database of LOGICAL_DATABASES) {
      const stored = head.storage?.databases[database]
      if (!stored) continue
      const { entries, ...sealed } = await this.#sealDatabase({ backup: id, database, stored, opened })
      databases[database] = sealed.stored
      const name = apiKey(database)
      dbs[name] = { ...dbs[name], stored_bytes: sum(entries, ({ stored }) => stored) }
    }
    await this.#replace(head, { ...opened, dbs }, databases)
    this.#options.onBackup({
      id,
      chunks: this.#chunks - before.chunks,
      bytes: this.#bytes - before.bytes
    })
  }

  async #sealDatabase(of: {
    backup: string
    database: LogicalDatabase
    stored: StoredDatabase
    opened: OpenedHeader
  }): Promise<{ stored: StoredDatabase; entries: ChunkEntry[] }> {
    const { backup, database, stored, opened } = of
    const { db, codec } = this.#store
    const { key } = this.#options
    const [chunkRange, manifestRange] = partRanges(backup, database)
    const places = new ChunkPlaces({ db, backup, database, first: await this.#nextIn(chunkRange) })
    const reader = new ChunkReader(db, codec, { database, keys: opened.keys })
    const listed = [...(await readEntries(db, stored)), ...(stored.index ?? [])]
    const entries: ChunkEntry[] = []
    await atATime(CHUNKS_AT_A_TIME, listed.entries(), async ([i, entry]) => {
      entries[i] = await this.#sealChunk(entry, { database, opened, places, reader })
    })
    const count = entries.length - (stored.index?.length ?? 0)
    const known = this.#manifests.get(database)
    const first = await this.#nextIn(manifestRange)
    const { lists } = await moveToManifests(db, of, entries.slice(0, count), known, first)
    this.#manifests.set(database, lists.manifests)
    const index = stored.index && { index: entries.slice(count) }
    return { stored: { ...stored, ...lists, ...index, sealed: [key.id] }, entries }
  }

  /** Returns a number after those of all parts in a range, so that no id is used again. */
  async #nextIn(range: { from: string; to: string }): Promise<number> {
    const last = (await this.#store.db.rows(range)).at(-1)
    return last === undefined ? 0 : numberOf(last.id) + 1
  }

  async #sealChunk(entry: ChunkEntry, sealing: DatabaseSealing): Promise<ChunkEntry> {
    const { key } = this.#options
    if (entry.sealed === key.id) return entry
    const name = nameOf(entry)
    let resealed = this.#resealed.get(name)
    if (!resealed) {
      resealed = await this.#storeAgain(entry, sealing)
      this.#resealed.set(name, resealed)
      this.#chunks++
      this.#bytes += resealed.stored
    }
    return { ...entry, ...resealed, was: name }
  }

  async #storeAgain(
    entry: ChunkEntry,
    { database, opened, places, reader }: DatabaseSealing
  ): Promise<ResealedChunk> {
    const { db, codec } = this.#store
    const { key } = this.#options
    const { large, sealed } = entry
    const length = entry.stored - (sealed === undefined ? 0 : SEAL_BYTES)
    // Found out beforehand: a request that its body ends looks like one that the database did not answer.
    await reader.verify(entry)
    const body = { open: () => reader.encoded(entry), length }
    const stored = await putChunk(body, { db, attachment: codec.attachment, places, seal: { key, database } })
    if (large === undefined) return stored
    const former = sealed === undefined ? undefined : opened.keys.get(sealed)
    const clear = former ? openLarge(former, entry, database) : large
    return { ...stored, large: sealLarge(clear, key, stored, database) }
  }

  /** Writes the header that lists the new chunks. Attachments that clients append meanwhile stay. */
  async #replace(
    head: Head,
    { dbs, error }: OpenedHeader,
    databases: HeaderDocument['storage']['databases']
  ): Promise<void> {
    const { _id: id, _rev, _attachments, storage, ...told } = head as Head & HeaderDocument
    const { key } = this.#options
    const { seal: _seal, ...stored } = storage
    const header = {
      ...told,
      dbs,
      ...(error !== undefined && { error }),
      storage: { ...stored, databases }
    } as unknown as HeaderDocument
    const next = sealHeader(header, { id, key, keys: [] })
    await this.#store.headerMutex.run(id, () =>
      this.#store.db.modify<HeaderDocument & { damaged?: unknown }>(id, (current) => {
        if (current?.type !== BACKUP_TYPE) throw new BackupNotFoundError(id)
        const { _attachments, damaged } = current
        return { ...next, ...(_attachments && { _attachments }), ...(damaged !== undefined && { damaged }) }
      })
    )
  }

  /** Deletes what backups of this console have made and no header lists. */
  async #sweep(makers: ReadonlySet<string>): Promise<PartCount> {
    const { db } = this.#store
    const deleted: PartCount = { parts: 0, bytes: 0 }
    const isOfThese = (maker: string | undefined) => maker !== undefined && makers.has(maker)
    const references = new References(db, isOfThese)
    try {
      await references.update()
    } catch (error) {
      // The header of a backup that cannot be read whole may list any chunk.
      if (!(error instanceof DamagedBackupError || error instanceof UnknownLayoutError)) throw error
      this.#left.push({ id: error.id, reason: `nothing was deleted: ${error.message}` })
      return deleted
    }
    await requireNoneStarted(db, this.#options.replicas)
    for await (const group of allParts(db)) {
      const unlisted = group.filter(({ id }) => isOfThese(makerOf(id)) && !references.has(id))
      const parts = await ownParts(db, unlisted)
      await deleteParts(db, parts)
      deleted.parts += parts.length
      deleted.bytes += sum(parts, ({ bytes }) => bytes)
    }
    return deleted
  }
}

const resealedIn = ({ id, rev, stored, sha256, sealed, large }: ChunkEntry): ResealedChunk => ({
  id,
  rev,
  stored,
  sha256,
  sealed,
  ...(large !== undefined && { large })
})

/** Returns whether the state of one backup is why it could not be sealed: others can be. */
const isOfBackup = (error: unknown): error is Error =>
  [
    DamagedBackupError,
    KeyUnavailableError,
    WrongKeyError,
    NotSealedBackupError,
    UnknownLayoutError,
    BackupNotFoundError,
    NotSealableError
  ].some((kind) => error instanceof kind)
