import type { CouchClient } from '../couch/client.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { isNotFound } from '../couch/errors.js'
import type { ReplicasWatch } from '../couch/replicas.js'
import {
  BackupChangedError,
  BackupNotFoundError,
  DamagedBackupError,
  InvalidParameterError,
  ReservedIdError
} from '../errors.js'
import { LeaseDocument } from '../lease/lease-document.js'
import { BACKUP_TYPE, backupId, beganAt, isBackupId, stampIn } from '../own-documents.js'
import type { SealingKey } from '../seal/sealing-key.js'
import { atATime } from '../waits/at-a-time.js'
import { KeyedMutex } from '../waits/keyed-mutex.js'
import { inTurns, type Steps, sharedTurn } from '../waits/steps.js'
import { Appender, type AppendLimits } from './appender.js'
import { gzip } from './codec.js'
import { DamageRecords, type Verdict } from './damage.js'
import { newBackupId } from './ids.js'
import { CHUNK_BYTES, type Store } from './layout.js'
import { LoadedBackup } from './loaded-backup.js'
import type { Owner } from './owner.js'
import { Parts } from './parts.js'
import { readHeader } from './read-header.js'
import { HEADERS_AT_A_TIME, headerRevisions } from './references.js'
import { type Rekeyed, Rekeying, type RekeyingOptions } from './rekeying.js'
import { Removal, type RemovalOptions, requireSettled } from './removal.js'
import { RunningBackup } from './running-backup.js'
import { checkCopyable, Transfer, type Transferred } from './transfer.js'

/** Ids that are tried, since documents of the console may have them; each is twice as far off. */
const ATTEMPTS = 8
/** Documents whose type is asked for at a time. */
const TYPES_AT_A_TIME = 8
/** Milliseconds that a backup may begin later than the time in its id: requests between them may stall. */
const LATEST_BEGIN = 60 * 60_000
/** Documents in the range of headers that are worked on in one step: less than a millisecond. */
const LISTED = 500

interface KnownDocument {
  /** Absent for a document that was not shown. */
  rev: string | undefined
  header: boolean
}

/** The known documents in the range of headers, shared by all that read one database for one registration. */
interface KnownHeaders {
  known: ReadonlyMap<string, KnownDocument>
}

/** Keeps backups in a CouchDB database. Only this room knows their documents, digests and compression. */
export class Repository {
  readonly #db: CouchDatabase
  readonly #store: Store
  /** Documents in the range of headers, as of the last list. */
  readonly #headers: KnownHeaders
  /** Settles with the list that is being read. */
  #lastList: Promise<unknown> = Promise.resolve()
  /** The list that is read after that one. */
  #nextList: Promise<readonly string[]> | undefined

  constructor(
    db: CouchDatabase,
    settings: Partial<Omit<Store, 'db'>> = {},
    headers: KnownHeaders = { known: new Map() }
  ) {
    this.#db = db
    this.#headers = headers
    this.#store = {
      codec: gzip,
      headerMutex: new KeyedMutex(),
      now: () => Date.now(),
      chunkBytes: CHUNK_BYTES,
      ...settings,
      db
    }
  }

  get name(): string {
    return this.#db.name
  }

  /** Returns the repository on its own connections, with the client's retries, signal and fence. */
  on(client: CouchClient): Repository {
    return new Repository(this.#db.like(client), this.#store, this.#headers)
  }

  /** Returns a repository in another database, with the same codec and keys. */
  elsewhere(database: CouchDatabase): Repository {
    return new Repository(database, { ...this.#store, headerMutex: new KeyedMutex() })
  }

  /** Returns whether a database is the one that keeps the backups. */
  isIn(database: CouchDatabase): boolean {
    return this.#db.isSame(database)
  }

  /** Returns the lease beside the backups. */
  lease(client: CouchClient): LeaseDocument {
    return new LeaseDocument(this.#db.like(client))
  }

  ensure(): Promise<void> {
    return this.#db.ensure()
  }

  /** Returns the ids of all backups, oldest first. Those that a replica no longer shows are looked up. */
  list(): Promise<readonly string[]> {
    // While a list is read, all other callers share the next, which shows what was written before they asked.
    this.#nextList ??= this.#lastList.then(() => {
      this.#nextList = undefined
      const list = this.#list()
      this.#lastList = list.catch(() => undefined)
      return list
    })
    return this.#nextList
  }

  async #list(): Promise<string[]> {
    const documents = await inTurns(this.#toLookAt(await headerRevisions(this.#db)))
    const known = new Map<string, KnownDocument>()
    await atATime(TYPES_AT_A_TIME, documents, async ([id, rev]) => {
      await sharedTurn()
      known.set(id, { rev, header: await this.#isHeader(id, rev) })
    })
    this.#headers.known = known
    return inTurns(headersByStamp(known))
  }

  /** Returns revisions by id: those shown, and those known before, whose revisions are unknown. */
  *#toLookAt(rows: readonly Revision[]): Steps<[string, string | undefined][]> {
    const found = new Map<string, string | undefined>()
    for (const [i, { id, rev }] of rows.entries()) {
      if (i % LISTED === 0) yield
      found.set(id, rev)
    }
    yield
    for (const [id, { header }] of this.#headers.known) if (header && !found.has(id)) found.set(id, undefined)
    return [...found]
  }

  /** Returns whether a document is a header: a document of the console may have such an id. */
  async #isHeader(id: string, rev?: string): Promise<boolean> {
    const known = this.#headers.known.get(id)
    return known && rev !== undefined && known.rev === rev
      ? known.header
      : (await this.#db.type(id)) === BACKUP_TYPE
  }

  /** Reads a backup's header, if any, in bounded memory also where the documents are inside. */
  async load(id: string): Promise<LoadedBackup | null> {
    const head = await readHeader(this.#db, id)
    return head && new LoadedBackup(this.#store, head)
  }

  /** Reads a named header, whatever it is like, and does not open it. @throws InvalidParameterError, BackupNotFoundError */
  async find(id: string): Promise<LoadedBackup> {
    if (typeof id !== 'string' || !isBackupId(id)) {
      throw new InvalidParameterError('backup_id is not the id of a backup')
    }
    const loaded = await this.load(id)
    if (!loaded) throw new BackupNotFoundError(id)
    return loaded
  }

  /** Reads and opens a named backup. @throws what `find` does, UnknownLayoutError, and LoadedBackup.open */
  async get(id: string): Promise<LoadedBackup> {
    return (await this.#readable(id)).open()
  }

  /**
   * Yields what is read of backups without a lease: what a removal or a rekeying took away meanwhile is not damaged.
   * @throws BackupNotFoundError, BackupChangedError
   */
  async *reading<T>(backups: readonly LoadedBackup[], read: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* read
    } catch (error) {
      const isDamaged = error instanceof DamagedBackupError
      if (!isDamaged && !isNotFound(error)) throw error
      for (const { id, revision, contentDigest } of backups) {
        const now = await this.find(id)
        // A verification that notes damage in the header changes its revision, and nothing that is read here.
        const isSame = isDamaged ? now.contentDigest === contentDigest : now.revision === revision
        if (!isSame) throw new BackupChangedError(id)
      }
      throw error
    }
  }

  async #readable(id: string): Promise<LoadedBackup> {
    const loaded = await this.find(id)
    loaded.checkReadable()
    return loaded
  }

  /** Whether what is written is sealed. */
  get isSealing(): boolean {
    return this.#store.keyring !== undefined
  }

  /** Makes sure that what is written can be sealed. @returns the key's id @throws KeyUnavailableError, InvalidParameterError */
  async requireKey(): Promise<string> {
    return (await this.#currentKey()).id
  }

  #currentKey(): Promise<SealingKey> {
    const { keyring } = this.#store
    if (!keyring) throw new InvalidParameterError('the option encryption is missing')
    return keyring.get(keyring.current)
  }

  /** Returns whether a backup is sealed as those that are made now, so that they may share its chunks. */
  sealsLike({ sealed }: LoadedBackup): boolean {
    return (sealed !== undefined) === this.isSealing
  }

  /** Returns whether there is a backup with this id: it may have been removed since it was read. */
  async has(id: string): Promise<boolean> {
    return (await this.#db.type(id)) === BACKUP_TYPE
  }

  /** Returns whether parts are there that the backup has made and no header lists. */
  hasUnlistedParts(id: string): Promise<boolean> {
    return new Parts(this.#db).has(id)
  }

  /** Reads all headers, some at a time, and shows each once, in any order. */
  async each(visit: (backup: LoadedBackup) => void): Promise<void> {
    await atATime(HEADERS_AT_A_TIME, await headerRevisions(this.#db), async ({ id }) => {
      const loaded = await this.load(id)
      if (loaded) visit(loaded)
    })
  }

  /** Reads a named backup that can be copied. @throws what `find` does, and {@link checkCopyable} */
  async checkCopyable(id: string): Promise<void> {
    checkCopyable(await this.find(id))
  }

  /**
   * Copies a backup to another repository. To be run under the lease there. @throws what {@link Transfer} throws
   * @param system real name of the system database of this console
   */
  copy(id: string, to: Repository, system: string): Promise<Transferred> {
    return new Transfer(this.#store, to.#store, { system }).run(id)
  }

  /** Waits until a list shows every header, before a removal. @throws CouchError when it may not */
  settle(): Promise<ReplicasWatch | undefined> {
    return requireSettled(this.#db)
  }

  /** Returns what the clock of the server says that keeps the backups, in milliseconds since the epoch. */
  serverTime(): Promise<number> {
    return this.#db.time()
  }

  /** Records what a verification has found. @returns ids of the backups that list each damaged part */
  recordVerdict(verdict: Verdict): Promise<Map<string, string[]>> {
    return new DamageRecords(this.#store).record(verdict)
  }

  /** Returns a removal, which has to be prepared before it runs. */
  removal(options: RemovalOptions): Removal {
    return new Removal(this.#store, options)
  }

  /** Seals all backups of the console with the current key. @throws KeyUnavailableError, CouchError */
  async rekey(options: Omit<RekeyingOptions, 'key'>): Promise<Rekeyed> {
    const key = await this.#currentKey()
    return new Rekeying(this.#store, { key, ...options }).run()
  }

  /**
   * Finds the good backups that began at or after `since` (milliseconds since the epoch), newest id first.
   * @param of.owner the console that has made them @param of.newest number of the newest backup, in case the list lags
   */
  async *goodSince(since: number, of: { owner: Owner; newest?: bigint }): AsyncGenerator<LoadedBackup> {
    const ids = new Set(await this.list())
    if (of.newest) ids.add(backupId(of.newest))
    for (const id of [...ids].reverse()) {
      if (beganAt(id) < since - LATEST_BEGIN) continue
      const loaded = await this.load(id)
      if (loaded?.state === 'good' && loaded.isOf(of.owner) && loaded.beganAt >= since) yield loaded
    }
  }

  /** Returns the id of the backup that has this number. */
  backupId(stamp: bigint): string {
    return backupId(stamp)
  }

  /** Returns a backup that is to begin, or that has begun, to be made or ended. */
  runningBackup(id: string): RunningBackup {
    return new RunningBackup(id, this.#store)
  }

  /**
   * Returns a function that names new backups, later than any before, whatever the clock says, from the
   * newest number and the ids that other documents have. After too many of these, it throws ReservedIdError.
   */
  async newIds(): Promise<(newest: bigint, taken: readonly string[]) => { id: string; carried: bigint }> {
    const newestListed = (await this.list()).at(-1)
    return (newest, taken) => {
      const last = taken.at(-1)
      if (last !== undefined && taken.length >= ATTEMPTS) throw new ReservedIdError(last, this.name)
      return newBackupId(newest, last ?? newestListed, taken.length, this.#store.now())
    }
  }

  /** @param wait as of {@link Appender} */
  appender(limits: AppendLimits, wait: number): Appender {
    return new Appender(this.#store, (id) => this.#readable(id), limits, wait)
  }
}

/** Returns the ids of the headers, oldest first. */
function* headersByStamp(known: ReadonlyMap<string, KnownDocument>): Steps<string[]> {
  const stamped: { id: string; stamp: bigint }[] = []
  let looked = 0
  for (const [id, { header }] of known) {
    if (++looked % LISTED === 0) yield
    if (header) stamped.push({ id, stamp: stampIn(id) })
  }
  yield
  // Nearly sorted already, as listed: about one comparison each.
  stamped.sort((a, b) => (a.stamp < b.stamp ? -1 : 1))
  yield
  return stamped.map(({ id }) => id)
}
