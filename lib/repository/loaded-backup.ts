import type { DamagedBackup, LastVerification } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { attachmentBase64, stubOf } from '../couch/attachments.js'
import type { CouchClient } from '../couch/client.js'
import { DamagedBackupError, UnknownLayoutError } from '../errors.js'
import type { StubMembers } from '../json/attachments.js'
import { beganAt, hasDamagedDocuments, stateOf, type ToldState } from '../own-documents.js'
import { type Keys, NO_KEYS } from '../seal/keyring.js'
import { BaseDocuments } from './base.js'
import { ChunkReader } from './chunk-reader.js'
import { DatabaseCheck } from './database-check.js'
import type { OnFinding } from './findings.js'
import { type OpenedHeader, openHeader } from './header-seal.js'
import { kindOfStorage } from './header-storage.js'
import {
  contentDigest,
  type Head,
  PLAIN_LAYOUT,
  SEALED_LAYOUT,
  type Store,
  type StoredHeader,
  type ToldHeader
} from './layout.js'
import { isOwnedBy, nameOfOrigin, type Owner } from './owner.js'
import { type StoredBytes, StoredDocuments, storedLength } from './stored-documents.js'

/** The state of a backup. `unreadable`: its header is not as it was written, and nothing but its removal can be asked of it. */
type BackupState = ToldState | 'unreadable'

/** Reasons to refuse something of a backup, by its state. Follow a colon. */
export const REASONS: Readonly<Partial<Record<BackupState, string>>> = {
  running: 'it is still being made',
  failed: 'it has failed, and holds nothing',
  damaged: 'documents in it were found to be damaged'
}

/** Returns why there is nothing to be read of a backup of this state, if so. */
export const whyEmpty = (state: BackupState): string | undefined =>
  state === 'running' || state === 'failed' ? REASONS[state] : undefined

/** Something that a client has appended to a backup. */
interface Appended {
  contentType: unknown
  length: number | undefined
  /** Length in base64, unless that is found out only by reading it. */
  textLength: number | undefined
}

/** A backup as its header told when it was read. */
export class LoadedBackup {
  readonly id: string
  /** Another one after every change of the backup, and of what is appended to it. */
  readonly revision: string
  readonly header: ToldHeader
  /** The attachments that clients have appended, by name. */
  readonly attachments: ReadonlyMap<string, Appended>
  readonly #store: Store
  readonly #head: Head
  readonly #opened: OpenedHeader | undefined
  /** See {@link kindOfStorage}; athena's backups have no storage. */
  readonly #kind: 'legacy' | ReturnType<typeof kindOfStorage>

  /** @param opened what a sealed header tells, once it is opened */
  constructor(store: Store, head: Head, opened?: OpenedHeader) {
    const { _id, _rev, _attachments = {}, storage, ...told } = head
    this.id = _id
    this.revision = _rev
    const { dbs, error } = opened ?? head
    this.header = { ...(told as ToldHeader), dbs, ...(error !== undefined && { error }) }
    this.#opened = opened
    this.attachments = new Map(
      Object.entries(_attachments).map(([name, stub]) => [name, appended(name, stub)])
    )
    this.#store = store
    this.#head = head
    this.#kind = storage === undefined ? 'legacy' : kindOfStorage(storage)
  }

  /** Returns the same backup, read as `client` reads. */
  on(client: CouchClient): LoadedBackup {
    return new LoadedBackup({ ...this.#store, db: this.#store.db.like(client) }, this.#head, this.#opened)
  }

  /**
   * Returns the same backup with its seal checked, to be read whole. One that is not sealed is taken as it is.
   * @throws KeyUnavailableError, WrongKeyError, DamagedBackupError, NotSealedBackupError
   */
  async open(): Promise<LoadedBackup> {
    return new LoadedBackup(this.#store, this.#head, await openHeader(this.#head, this.#store.keyring))
  }

  /** Id of the key that it is sealed with, as its header says. */
  get sealed(): string | undefined {
    const key: unknown = this.#head.storage?.seal?.key
    return typeof key === 'string' ? key : undefined
  }

  /** Keys that its chunks are sealed with, once it is opened. */
  get keys(): Keys {
    return this.#opened?.keys ?? NO_KEYS
  }

  /** Whether athena made it: one document with the documents inside. */
  get isLegacy(): boolean {
    return this.#kind === 'legacy'
  }

  /** Whether it is of a layout that this version writes. */
  get isCurrent(): boolean {
    return this.#kind === 'known' && [PLAIN_LAYOUT, SEALED_LAYOUT].includes(this.#head.storage?.layout ?? 0)
  }

  /** Whether a later version made it: it may list anything, in a way that is not known. */
  get isLater(): boolean {
    return this.#kind === 'later'
  }

  /** @throws UnknownLayoutError, DamagedBackupError where nothing but its removal can be asked of it */
  checkReadable(): void {
    if (this.isLater) throw new UnknownLayoutError(this.id)
    if (this.#kind === 'damaged')
      throw new DamagedBackupError('header', this.id, 'is damaged: its storage is not as it was written')
  }

  /** Returns whether a console has made it. Earlier versions and athena did not tell. */
  isOf(owner: Owner): boolean {
    return isOwnedBy(this.#head.storage ?? {}, owner)
  }

  /** The console that has made it, for people. */
  get origin(): string {
    return nameOfOrigin(this.#head.storage ?? {})
  }

  /** Whether it was made to take a restore back: it may lack databases that were lost, and are being restored. */
  get isBeforeRestore(): boolean {
    return this.#head.storage?.before_restore !== undefined
  }

  get state(): BackupState {
    const state = stateOf({ ...this.header, damaged: this.damaged })
    return this.#kind === 'damaged' && state !== 'running' && state !== 'failed' ? 'unreadable' : state
  }

  /** Whether it has ended without an error. */
  get isComplete(): boolean {
    return this.state === 'good' || this.state === 'damaged'
  }

  /** The damage that was found. Never told of backups that athena made, whatever they hold. */
  get damaged(): DamagedBackup | undefined {
    return this.isLegacy ? undefined : this.#head.damaged
  }

  /** When its documents were found to be damaged, in milliseconds since the epoch; `undefined` if they were not. */
  get damagedSince(): number | undefined {
    return hasDamagedDocuments(this.damaged) ? this.damaged?.found : undefined
  }

  /** Returns whether something of a database was found to be damaged, be it only what the next backup needs. */
  isDamagedIn(database: LogicalDatabase): boolean {
    return this.damaged?.databases[database] !== undefined
  }

  /** The last verification that came to its end. */
  get verified(): LastVerification | undefined {
    return this.isLegacy ? undefined : this.#head.verified
  }

  /** Another one when it holds or tells of other documents, whatever is noted of it otherwise. */
  get contentDigest(): string {
    return contentDigest(this.#head.dbs, this.#head.storage?.databases ?? {})
  }

  /** When it began, by the clock of its instance, in milliseconds since the epoch. */
  get beganAt(): number {
    const { start_timestamp: start } = this.header
    return typeof start === 'number' ? start : beganAt(this.id)
  }

  /** About when it ended, in milliseconds since the epoch: headers of athena's backups may say anything. */
  get endedAt(): number {
    const { end_timestamp: end } = this.header
    return typeof end === 'number' && end <= this.#store.now() ? end : beganAt(this.id)
  }

  /** Milliseconds since it began. */
  get age(): number {
    return this.#store.now() - this.beganAt
  }

  /** Backups before it that were each the base of the next. */
  get chainLength(): number {
    const { chain_length: length } = this.header
    return Number.isSafeInteger(length) ? Math.max(0, length as number) : 0
  }

  /** Whether the header tells and lists what it did when the backup ended. */
  get isUntouched(): boolean {
    return this.#head.storage?.sha256 === this.contentDigest
  }

  /** Reads what is listed of a database, to check it; `null` where nothing is. */
  async check(database: LogicalDatabase, onFinding: OnFinding): Promise<DatabaseCheck | null> {
    return DatabaseCheck.open(this.#reader(database), this.#stored, database, onFinding)
  }

  /** Returns what the next backup can be based on of one database; `undefined` where its header tells nothing for it. */
  base(database: LogicalDatabase): BaseDocuments | undefined {
    return this.isCurrent ? BaseDocuments.of(this.#store, this.#stored, database, this.keys) : undefined
  }

  /** Finds what it holds of one database, or `null`. @throws DamagedBackupError */
  async documents(database: LogicalDatabase): Promise<StoredDocuments | null> {
    if (this.isLegacy) return null
    return StoredDocuments.open(this.#reader(database), this.#stored, database)
  }

  #reader(database: LogicalDatabase): ChunkReader {
    const { db, codec } = this.#store
    return new ChunkReader(db, codec, { database, keys: this.keys })
  }

  /** Returns the bytes of a database's lines; `undefined` when some lines do not count. */
  linesLength(database: LogicalDatabase): number | undefined {
    return storedLength(this.#stored, database)
  }

  /** Finds the JSON of a backup as athena made it, with the documents inside. */
  legacyDocument(): StoredBytes {
    const { id } = this
    const { db } = this.#store
    const { client, name } = db
    return {
      open: async function* () {
        yield* (await client.stream({ path: [name, id] })).body
      },
      readAll: (read) => db.readStream(id, read)
    }
  }

  /** Streams in base64 what a client has appended. */
  attachmentText(name: string): AsyncIterable<Uint8Array> {
    const { id, revision: rev } = this
    return attachmentBase64(this.#store.db, { id, rev }, stubOf(name, this.#head._attachments?.[name] ?? {}))
  }

  /** The header as stored. Only for a backup that is not a legacy one. */
  get #stored(): StoredHeader {
    return { ...this.#head, dbs: this.header.dbs } as unknown as StoredHeader
  }
}

function appended(name: string, stub: StubMembers): Appended {
  const { contentType, length } = stubOf(name, stub)
  return {
    contentType,
    length: typeof stub.length === 'number' ? stub.length : undefined,
    textLength: length === undefined ? undefined : Math.ceil(length / 3) * 4
  }
}
