import type { LogicalDatabase } from '../../types/databases.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import {
  BackupNotCopyableError,
  BackupNotFoundError,
  CopyConflictError,
  DamagedBackupError,
  KeyUnavailableError,
  ReservedIdError,
  WrongKeyError
} from '../errors.js'
import { BACKUP_TYPE, MANIFEST_TYPE, REMOVED_TYPE } from '../own-documents.js'
import type { SealingKey } from '../seal/sealing-key.js'
import { atATime } from '../waits/at-a-time.js'
import { AppendedTransfer } from './appended-transfer.js'
import { ChunkTransfer } from './chunk-transfer.js'
import { sha256Of } from './codec.js'
import { openHeader, resealHeader } from './header-seal.js'
import { kindOfStorage } from './header-storage.js'
import { makerOf, partId } from './ids.js'
import {
  type ChunkEntry,
  contentDigest,
  type Head,
  type HeaderDocument,
  LAYOUT,
  type ManifestDocument,
  type Store,
  type StoredDatabase
} from './layout.js'
import { LoadedBackup, REASONS } from './loaded-backup.js'
import { entryGroups, putManifest, readManifest } from './manifests.js'
import { isSameOrigin, type Origin, originIn } from './owner.js'
import { listedMaker } from './part-documents.js'
import { Parts } from './parts.js'
import { readHeader, readInPlace } from './read-header.js'
import type { PartCount, RemovedHeader } from './removal.js'

/** How often a backup is copied whose header changes meanwhile: what clients append, or a rekeying. */
const ATTEMPTS = 5
/** Headers that are asked for at a time. */
const MAKERS_AT_A_TIME = 8

type Manifest = StoredDatabase['manifests'][number]

/** What a copy has done, and what it found there: chunks, manifests, and what clients have appended. */
export interface Transferred {
  copied: PartCount
  reused: PartCount
  /** It was there: nothing was written. */
  already: boolean
}

interface TransferOptions {
  /** Real name of the system database, for backups of earlier versions, which do not tell. */
  system: string
}

/** The header of a good backup that can be copied. */
interface CopySource {
  head: StoredHead
  /** The key that its header is sealed with; `undefined` where it is not sealed. */
  key(): SealingKey | undefined
}

type StoredHead = Head & { storage: NonNullable<Head['storage']> }

/** Thrown where the header of the backup has changed since it was read. */
class ChangedSourceError extends Error {}

/**
 * Copies a backup to another repository, with only the parts that are missing there. First the ids of the backup, and of
 * all others that have made parts of it, are marked as those of removed backups are, so that a pruning there deletes what
 * an interrupted copy leaves. Then the parts are stored, and the header last, once all that it lists was read back.
 * Run it under the lease of the database that it writes to.
 */
export class Transfer {
  readonly #from: Store
  readonly #to: Store
  readonly #options: TransferOptions
  readonly #copied: PartCount = { parts: 0, bytes: 0 }
  #wrote = false

  constructor(from: Store, to: Store, options: TransferOptions) {
    this.#from = from
    this.#to = to
    this.#options = options
  }

  /**
   * @throws BackupNotFoundError, BackupNotCopyableError, UnknownLayoutError, DamagedBackupError, NotSealedBackupError
   * @throws CopyConflictError, ReservedIdError, KeyUnavailableError, WrongKeyError before anything is written, where that
   * can be known
   */
  async run(id: string): Promise<Transferred> {
    for (let left = ATTEMPTS; ; left--) {
      const source = await this.#read(id)
      try {
        return await this.#copy(source)
      } catch (error) {
        if (!(await this.#hasChanged(source.head, error))) throw error
        if (left <= 1) throw new BackupNotCopyableError(id, 'it was changed again and again meanwhile')
      }
    }
  }

  /** Reads a backup that can be copied, and checks its seal if there is a key. */
  async #read(id: string): Promise<CopySource> {
    const head = await this.#header(id)
    checkCopyable(new LoadedBackup(this.#from, head))
    let unavailable: unknown
    const opened = await openHeader(head, this.#from.keyring).catch((error) => {
      if (!(error instanceof KeyUnavailableError || error instanceof WrongKeyError)) throw error
      unavailable = error
      return undefined
    })
    const key = () => {
      if (unavailable !== undefined) throw unavailable
      const seal = head.storage?.seal
      return seal && opened?.keys.get(seal.key)
    }
    return { head: head as StoredHead, key }
  }

  /** Reads the header of the backup to copy. @throws BackupNotFoundError */
  async #header(id: string): Promise<Head> {
    const head = await readHeader(this.#from.db, id)
    if (!head) throw new BackupNotFoundError(id)
    return head
  }

  /** Returns whether a copy may have failed since the backup has changed. @throws BackupNotFoundError */
  async #hasChanged({ _id: id, _rev }: Head, error: unknown): Promise<boolean> {
    // A chunk is missing as well where the backup was removed, or sealed anew.
    if (!(error instanceof ChangedSourceError || error instanceof DamagedBackupError)) return false
    return (await this.#header(id))._rev !== _rev
  }

  async #copy({ head, key }: CopySource): Promise<Transferred> {
    const { _id: id } = head
    const chunks = new ChunkTransfer({
      id,
      from: this.#from,
      to: this.#to,
      onCopied: ({ stored }) => this.#countCopied(stored),
      onOtherRevision: key
    })
    const appended = new AppendedTransfer({
      id,
      rev: head._rev,
      from: this.#from.db,
      to: this.#to.db,
      appended: head._attachments ?? {},
      onCopied: ({ length = 0 }) => this.#countCopied(length)
    })
    await this.#lookAt(head)
    appended.survey()
    const { makers, held } = await this.#survey(head, chunks, key)
    await this.#mark([...makers], this.#originOf(head))
    const databases = await this.#store(head, chunks)
    await appended.store()
    await this.#readBack(id, databases)
    await this.#requireUnchanged(head)
    await this.#finish(head, databases, key)
    return {
      copied: this.#copied,
      reused: {
        parts: Math.max(0, held.parts - this.#copied.parts),
        bytes: Math.max(0, held.bytes - this.#copied.bytes)
      },
      already: !this.#wrote
    }
  }

  #originOf({ storage }: Head): Origin {
    return originIn(storage ?? {}, this.#options.system)
  }

  #countCopied(bytes: number): void {
    this.#wrote = true
    addPart(this.#copied, bytes)
  }

  /** Looks at what is under the backup's id. @throws CopyConflictError, ReservedIdError where it is something else */
  async #lookAt(head: StoredHead): Promise<void> {
    const { _id: id } = head
    const { name } = this.#to.db
    const found = await readInPlace(this.#to.db, id)
    if (!found) return
    if (found.type === REMOVED_TYPE) {
      if (isSameOrigin(this.#originOf(found), this.#originOf(head))) return
      throw new CopyConflictError(
        id,
        name,
        'another console has removed a backup of that id, parts of which are there'
      )
    }
    if (found.type !== BACKUP_TYPE) throw new ReservedIdError(id, name)
    const { state } = new LoadedBackup(this.#to, found)
    if (state === 'running') throw new CopyConflictError(id, name, 'a backup of that id is being made there')
    if (kindOfStorage(found.storage) !== 'known' || identityOf(found) !== identityOf(head))
      throw new CopyConflictError(
        id,
        name,
        'another backup of that id is there, or this one as it was before it was sealed anew'
      )
    if (state === 'damaged')
      throw new CopyConflictError(id, name, 'it is there, and documents in it were found to be damaged there')
  }

  /**
   * Finds out whether all can be copied.
   * @returns the backups that have made parts of it, itself included, and a count of all that it holds
   */
  async #survey(
    { _id: id, storage, _attachments = {} }: StoredHead,
    chunks: ChunkTransfer,
    key: CopySource['key']
  ): Promise<{ makers: Set<string>; held: PartCount }> {
    const makers = new Set([id])
    const held: PartCount = { parts: 0, bytes: 0 }
    for (const { length } of Object.values(_attachments)) addPart(held, Number(length ?? 0))
    const survey = async (entries: readonly ChunkEntry[]) => {
      await chunks.survey(entries)
      for (const entry of entries) {
        makers.add(makerOf(entry.id) as string)
        addPart(held, entry.stored)
      }
    }
    for (const stored of Object.values(storage.databases)) {
      for (const manifest of stored.manifests) {
        const entries = await readManifest(this.#from.db, manifest)
        await survey(entries)
        const text = JSON.stringify(entries)
        const there = await this.#to.db.get<ManifestDocument>(manifest.id)
        if (there && !isManifest(there, text)) key()
        makers.add(listedMaker(id, manifest.id))
        addPart(held, text.length)
      }
      for (const entries of [stored.chunks, stored.superseded, stored.index ?? []]) await survey(entries)
    }
    return { makers, held }
  }

  /** Marks the backups that have no header there. */
  async #mark(makers: readonly string[], origin: Origin): Promise<void> {
    const { db } = this.#to
    const mark: RemovedHeader = { type: REMOVED_TYPE, storage: { layout: LAYOUT, ...origin } }
    await atATime(MAKERS_AT_A_TIME, makers, async (maker) => {
      if ((await db.type(maker)) !== undefined) return
      await db.modify<RemovedHeader>(maker, (current) => (current ? null : mark))
      this.#wrote = true
    })
  }

  /** Stores the parts that are missing. @returns what the header there is to list */
  async #store({ _id: id, storage }: StoredHead, chunks: ChunkTransfer): Promise<Databases> {
    const databases: Databases = {}
    for (const [name, stored] of Object.entries(storage.databases)) {
      const database = name as LogicalDatabase
      const manifests: Manifest[] = []
      for (const manifest of stored.manifests) {
        const entries = await chunks.store(await readManifest(this.#from.db, manifest), database)
        manifests.push(
          await this.#storeManifest(manifest, { id, database, entries: JSON.stringify(entries) })
        )
      }
      databases[database] = {
        ...stored,
        manifests,
        chunks: await chunks.store(stored.chunks, database),
        superseded: await chunks.store(stored.superseded, database),
        ...(stored.index && { index: await chunks.store(stored.index, database) })
      }
    }
    return databases
  }

  /** Stores a manifest under its id, or under one of this backup's where another manifest has it. */
  async #storeManifest(
    manifest: Manifest,
    { id, database, entries }: { id: string; database: LogicalDatabase; entries: string }
  ): Promise<Manifest> {
    const { db } = this.#to
    const listed = { ...manifest, sha256: sha256Of(entries) }
    const document = (maker: string): ManifestDocument => ({
      type: MANIFEST_TYPE,
      backup_id: maker,
      database,
      entries
    })
    const there = await db.get<ManifestDocument>(manifest.id)
    if (there && isManifest(there, entries)) return listed
    if (!there) {
      this.#countCopied(entries.length)
      const made = await db.modify<ManifestDocument>(manifest.id, (current) =>
        current ? null : document(makerOf(manifest.id) as string)
      )
      if (made && isManifest(made, entries)) return listed
    }
    for (let index = 0; ; index++) {
      const own = partId('manifest', id, database, index)
      const other = await db.get<ManifestDocument>(own)
      if (other && isManifest(other, entries)) return { ...listed, id: own }
      if (other) continue
      this.#countCopied(entries.length)
      const made = await putManifest(db, document(id), index)
      return { ...listed, id: partId('manifest', id, database, made) }
    }
  }

  /** Reads what the header is to list, and checks that each part is there. @throws CopyConflictError */
  async #readBack(id: string, databases: Databases): Promise<void> {
    const { db } = this.#to
    const parts = new Parts(db)
    try {
      for (const stored of Object.values(databases)) {
        for await (const entries of entryGroups(db, stored)) await parts.checkThere(entries)
        await parts.checkThere([...stored.superseded, ...(stored.index ?? [])])
      }
    } catch (error) {
      if (!(error instanceof DamagedBackupError)) throw error
      throw new CopyConflictError(id, db.name, `its part "${error.id}" does not stay there`)
    }
  }

  /** @throws BackupNotFoundError, ChangedSourceError */
  async #requireUnchanged({ _id: id, _rev }: Head): Promise<void> {
    if ((await this.#header(id))._rev !== _rev) throw new ChangedSourceError()
  }

  /** Puts the header in place of the mark, or of the one that lists other revisions of the same parts. */
  async #finish(head: StoredHead, databases: Databases, key: CopySource['key']): Promise<void> {
    const { _id: id, _rev, _attachments, verified: _verified, ...told } = head
    const header = listing({ ...told, _id: id } as unknown as Listing, databases, key)
    await this.#to.db.modify<HeaderDocument>(id, (current) => {
      if (!current || !(current.type === BACKUP_TYPE || (current.type as string) === REMOVED_TYPE))
        throw new CopyConflictError(id, this.#to.db.name, 'its document there was replaced meanwhile')
      const isHeader = current.type === BACKUP_TYPE
      if (isHeader && !this.#wrote && isListing(current, header)) return null
      this.#wrote = true
      const { damaged = undefined } = isHeader ? current : header
      const attached = inOrder(_attachments, current._attachments, isHeader)
      const { _id, damaged: _damaged, ...members } = header
      return { ...members, ...(damaged && { damaged }), ...(attached && { _attachments: attached }) }
    })
  }
}

/**
 * Returns the stubs of attachments that are there, in the order in which the backup has them: servers have orders of their
 * own for those that are added one by one. @param more whether to keep others
 */
function inOrder(
  wanted: Head['_attachments'],
  there: Head['_attachments'],
  more: boolean
): Head['_attachments'] {
  const all = there ?? {}
  const names = Object.keys(wanted ?? {}).filter((name) => Object.hasOwn(all, name))
  const others = more ? Object.keys(all).filter((name) => !names.includes(name)) : []
  const kept = [...names, ...others]
  return kept.length > 0 ? Object.fromEntries(kept.map((name) => [name, all[name]])) : undefined
}

type Databases = { [database in LogicalDatabase]?: StoredDatabase }
type Listing = HeaderDocument & { _id: string }

/** @throws BackupNotCopyableError, UnknownLayoutError, DamagedBackupError */
export function checkCopyable(backup: LoadedBackup): void {
  const { id, state } = backup
  if (backup.isLegacy)
    throw new BackupNotCopyableError(id, 'athena made it, as one document: replicate that document instead')
  backup.checkReadable()
  const why = REASONS[state]
  if (why !== undefined) throw new BackupNotCopyableError(id, why)
  if (backup.isCurrent && !backup.isUntouched)
    throw new DamagedBackupError('header', id, 'was changed after the backup had ended: its digest differs')
}

function addPart(sum: PartCount, bytes: number): void {
  sum.parts++
  sum.bytes += bytes
}

const isManifest = ({ type, entries }: ManifestDocument, text: string): boolean =>
  type === MANIFEST_TYPE && entries === text

/** Returns a header that lists parts as they are where it is copied to; itself where they are as they were. */
function listing(header: Listing, databases: Databases, key: CopySource['key']): Listing {
  const { storage, dbs } = header
  if (JSON.stringify(databases) === JSON.stringify(storage.databases)) return header
  const sha256 = storage.sha256 && { sha256: contentDigest(dbs, databases) }
  const listed = { ...header, storage: { ...storage, databases, ...sha256 } }
  const sealing = key()
  return sealing ? resealHeader(listed, sealing) : listed
}

const isListing = (current: HeaderDocument, header: Listing): boolean =>
  JSON.stringify(current.storage) === JSON.stringify(header.storage)

/** Returns what two headers of one backup have in common, wherever they are and whatever is noted of them since. */
function identityOf(head: Head): string {
  const { _attachments, damaged: _damaged, verified: _verified, _rev, dbs, storage, ...told } = head
  const {
    databases = {},
    sha256: _sha256,
    seal,
    ...origin
  } = (storage ?? {}) as Partial<StoredHead['storage']>
  const { mac: _mac, ...sealed } = seal ?? {}
  const listed = LOGICAL_DATABASES.map((database) => {
    const stored = databases[database]
    if (!stored) return null
    const { manifests, chunks, superseded, index = [], ...others } = stored
    const lists = [chunks, superseded, index].map((entries) =>
      entries.map(({ rev: _rev, ...entry }) => entry)
    )
    return [dbs[apiKey(database)], manifests.map(({ chunks }) => chunks), lists, others]
  })
  // Servers send members in an order of their own.
  const members = Object.entries(told).sort(([a], [b]) => (a < b ? -1 : 1))
  return sha256Of(JSON.stringify([members, dbs, origin, sealed, listed]))
}
