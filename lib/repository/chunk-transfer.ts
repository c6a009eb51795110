import type { LogicalDatabase } from '../../types/databases.js'
import { type WatchedSource, watchedSource } from '../bytes/watched-source.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import type { StreamedBody } from '../couch/requests.js'
import { CopyConflictError, DamagedBackupError, ReservedIdError } from '../errors.js'
import { attachmentsIn, readStub, type StubMembers } from '../json/attachments.js'
import { documentSteps, LARGE_DOCUMENT } from '../json/document.js'
import { CHUNK_TYPE } from '../own-documents.js'
import { atATime } from '../waits/at-a-time.js'
import { inTurns } from '../waits/steps.js'
import { ChunkAttempt } from './chunk-attempt.js'
import { ChunkReader } from './chunk-reader.js'
import { attachmentOf } from './chunk-seal.js'
import { makerOf, numberOf } from './ids.js'
import type { ChunkDocument, ChunkEntry, Store } from './layout.js'
import { groupsOf, listedMaker } from './part-documents.js'

/** Chunks that are read and stored at a time. */
export const CHUNKS_AT_A_TIME = 3
/** Documents made in one request. */
const MADE_AT_A_TIME = 8

/** The state of a chunk's id in the destination of a copy. */
type IdState =
  /** The chunk. */
  | { is: 'there'; rev: string }
  /** Its document, without its bytes. */
  | { is: 'begun'; rev: string }
  | { is: 'missing' }
  /** A deleted document: another revision follows than where nothing ever was. */
  | { is: 'deleted' }

interface StoredChunkDocument {
  /** `undefined` where the document is gone. */
  live: { rev: string; type: string | undefined; stub: StubMembers | undefined } | undefined
}

interface ChunkTransferOptions {
  /** Id of the backup. */
  id: string
  from: Store
  to: Store
  /** Called for each chunk that was stored. */
  onCopied(entry: ChunkEntry): void
  /** Called before a header is to list another revision of a chunk than where it comes from. */
  onOtherRevision(): void
}

/** Stores the chunks of a backup in another database, each under its id, unless it is there. */
export class ChunkTransfer {
  readonly #options: ChunkTransferOptions
  readonly #source: ChunkReader
  readonly #target: ChunkReader

  constructor(options: ChunkTransferOptions) {
    const { from, to } = options
    this.#options = options
    this.#source = new ChunkReader(from.db, from.codec)
    this.#target = new ChunkReader(to.db, to.codec)
  }

  /** Finds out what can be copied, and writes nothing. @throws CopyConflictError, ReservedIdError, DamagedBackupError */
  async survey(entries: readonly ChunkEntry[]): Promise<void> {
    for (const group of groupsOf(entries)) {
      const found = await this.#find(group)
      for (const entry of group) {
        const one = found.get(entry.id)
        if (one?.is === 'deleted' || (one?.is === 'there' && one.rev !== entry.rev))
          this.#options.onOtherRevision()
      }
    }
  }

  /** Stores what is missing. Returns the entries with the revisions that the chunks have there. */
  async store(entries: readonly ChunkEntry[], database: LogicalDatabase): Promise<ChunkEntry[]> {
    const stored: ChunkEntry[] = []
    for (const group of groupsOf(entries)) {
      const found = await this.#find(group)
      for (const [i, rev] of (await this.#storeGroup(group, found, database)).entries()) {
        if (rev !== group[i].rev) this.#options.onOtherRevision()
        stored.push({ ...group[i], rev })
      }
    }
    return stored
  }

  async #storeGroup(
    group: readonly ChunkEntry[],
    found: ReadonlyMap<string, IdState>,
    database: LogicalDatabase
  ): Promise<string[]> {
    const revisions = revisionsOf(group, found, 'there')
    const toStore = group.filter(({ id }) => !revisions.has(id))
    for (let at = 0; at < toStore.length; at += MADE_AT_A_TIME) {
      const some = toStore.slice(at, at + MADE_AT_A_TIME)
      const places = await this.#places(some, found, database)
      await atATime(CHUNKS_AT_A_TIME, some, async (entry) => {
        const rev = await this.#storeChunk(entry, places.get(entry.id) as string)
        revisions.set(entry.id, rev)
        this.#options.onCopied(entry)
      })
    }
    return group.map(({ id }) => revisions.get(id) as string)
  }

  /** Makes the documents that chunks are attached to. @returns their revisions */
  async #places(
    entries: readonly ChunkEntry[],
    found: ReadonlyMap<string, IdState>,
    database: LogicalDatabase
  ): Promise<Map<string, string>> {
    const places = revisionsOf(entries, found, 'begun')
    const toMake = entries.filter(({ id }) => !places.has(id))
    if (toMake.length === 0) return places
    const documents = toMake.map(({ id }) => Buffer.from(JSON.stringify(documentOf(id, database))))
    for (const { id, rev, error = 'bad_answer', reason = '' } of await this.#to.bulkDocs(documents)) {
      // A conflict is with this instance, when the answer to an earlier attempt was lost.
      const made = rev ?? (error === 'conflict' ? await this.#begun(id) : undefined)
      if (made === undefined) throw new CouchError(id, { error, reason })
      places.set(id, made)
    }
    return places
  }

  async #begun(id: string): Promise<string | undefined> {
    const document = await this.#to.get<ChunkDocument>(id)
    return document?.type === CHUNK_TYPE ? document._rev : undefined
  }

  get #to(): CouchDatabase {
    return this.#options.to.db
  }

  /** Stores a chunk with its document, in several attempts: all of them write the same. @returns its revision */
  async #storeChunk(entry: ChunkEntry, rev: string): Promise<string> {
    const body = await this.#bodyOf(entry)
    const attachment = attachmentOf(this.#options.to.codec.attachment, entry)
    const retrier = this.#to.client.retrier()
    for (;;) {
      const attempt = new ChunkAttempt(this.#to, attachment, { id: entry.id, rev }, body)
      const stored = await attempt.store(retrier).catch((error) => {
        throw body.failure() ?? error
      })
      const failure = body.failure()
      if (failure) throw failure
      if (stored) return stored.rev
    }
  }

  /** Opens a chunk to be sent, once its digest was checked. */
  async #bodyOf(entry: ChunkEntry): Promise<StreamedBody & WatchedSource> {
    const { stored: length } = entry
    // Longer ones are read twice: once to be checked, once to be sent.
    if (length <= LARGE_DOCUMENT) {
      const bytes = await this.#source.storedBytes(entry)
      const open = async function* () {
        yield bytes
      }
      return { length, open, failure: () => undefined }
    }
    await this.#source.verify(entry)
    return { length, ...watchedSource(() => this.#source.stored(entry)) }
  }

  /** Finds what lies under the ids of chunks. @throws CopyConflictError, ReservedIdError */
  async #find(entries: readonly ChunkEntry[]): Promise<Map<string, IdState>> {
    const { to, from } = this.#options
    const documents = await this.#documents(this.#to, entries)
    const found = new Map<string, IdState>()
    const present: ChunkEntry[] = []
    for (const entry of entries) {
      const { id } = entry
      listedMaker(this.#options.id, id)
      const document = documents.get(id)
      if (!document) found.set(id, { is: 'missing' })
      else if (!document.live) found.set(id, { is: 'deleted' })
      else if (document.live.type !== CHUNK_TYPE) throw new ReservedIdError(id, to.db.name)
      else if (!document.live.stub) found.set(id, { is: 'begun', rev: document.live.rev })
      else {
        found.set(id, { is: 'there', rev: document.live.rev })
        present.push(entry)
      }
    }
    if (present.length === 0) return found
    const originals = await this.#documents(from.db, present)
    for (const entry of present) {
      const stub = documents.get(entry.id)?.live?.stub
      if (!isSame(stub, originals.get(entry.id)?.live?.stub, entry)) await this.#check(entry)
    }
    return found
  }

  /** Checks by its bytes that a chunk is what the backup lists. @throws CopyConflictError */
  async #check(entry: ChunkEntry): Promise<void> {
    const { id, to } = this.#options
    try {
      await this.#target.verify(entry)
    } catch (error) {
      if (!(error instanceof DamagedBackupError)) throw error
      throw new CopyConflictError(id, to.db.name, `its chunk "${entry.id}" is there with other bytes`)
    }
  }

  async #documents(
    db: CouchDatabase,
    entries: readonly ChunkEntry[]
  ): Promise<Map<string, StoredChunkDocument>> {
    const names = new Map(
      entries.map((entry) => [entry.id, attachmentOf(this.#options.to.codec.attachment, entry).name])
    )
    const documents = new Map<string, StoredChunkDocument>()
    const wanted = entries.map(({ id }) => ({ id }))
    for await (const { id, doc } of db.bulkGet(wanted, { attachments: false })) {
      if (!doc) continue
      const document = await inTurns(documentSteps(doc))
      const { rev, type, deleted } = document
      if (deleted || rev === undefined) {
        documents.set(id, { live: undefined })
        continue
      }
      let stub: StubMembers | undefined
      for (const { name, members } of attachmentsIn(document))
        if (name === names.get(id)) stub = readStub(members, () => {})
      documents.set(id, { live: { rev, type, stub } })
    }
    return documents
  }
}

/** Returns the revisions of the chunks that were found in one state. */
const revisionsOf = (
  entries: readonly ChunkEntry[],
  found: ReadonlyMap<string, IdState>,
  is: IdState['is']
) =>
  new Map(
    entries.flatMap(({ id }) => {
      const one = found.get(id)
      return one?.is === is && 'rev' in one ? [[id, one.rev] as const] : []
    })
  )

/** Returns whether two stubs tell of the bytes that an entry does, as their databases say. */
const isSame = (one: StubMembers | undefined, other: StubMembers | undefined, { stored }: ChunkEntry) =>
  one !== undefined &&
  other !== undefined &&
  one.length === stored &&
  other.length === stored &&
  typeof one.digest === 'string' &&
  one.digest === other.digest

/** Returns the document of a chunk as its maker made it, so that it gets the revision that it has there. */
const documentOf = (id: string, database: LogicalDatabase): ChunkDocument & { _id: string } => ({
  _id: id,
  type: CHUNK_TYPE,
  backup_id: makerOf(id) as string,
  database,
  index: numberOf(id)
})
