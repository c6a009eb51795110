import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { shownName } from '../bytes/cut-text.js'
import { Silence } from '../waits/silence.js'
import { inTurnsIfLong, turnAfter } from '../waits/steps.js'
import { BulkResults, checked, type DatabaseInfo, Info, Query, RevsDiff, Written } from './answers.js'
import { type BulkAnswer, BulkBody, type BulkResult, bulkResults, bulkStream } from './bulk-body.js'
import { ChangesPage } from './changes-page.js'
import type { CouchClient } from './client.js'
import { CouchError, expected, isConflict, isMissing, isTooLarge, malformed } from './errors.js'
import { RowAnswer, stringMember } from './json-rows.js'
import { historyOf, type Leaf, sortLeaves } from './leaves.js'
import type { AttachmentPart } from './multipart.js'
import { anyNodeKnows } from './nodes.js'
import type { CouchRequest } from './request.js'
import { inParts } from './request-size.js'
import {
  type AllDocsRange,
  allDocsRequest,
  attachmentUpload,
  bulkGetRequest,
  bulkRequest,
  type ChangesRange,
  documentUpload,
  type Revision,
  revsDiffRequest,
  type StreamedBody,
  type StreamedWrite,
  tellingSent,
  type Wanted
} from './requests.js'
import { type CouchResponse, readJson } from './response.js'
import { openResumable, untilBegun } from './resumable.js'
import { allDocsReader, bulkGetRow, type FoundDocument, leavesOf, type Row } from './rows.js'

export type { DatabaseInfo, Revision }

/** Tells whether each shard of a database has several replicas, of which one may lag behind the others. */
export const isReplicated = ({ cluster }: DatabaseInfo): boolean => (cluster?.n ?? 1) > 1

/** How a database is created. `undefined`: as the server does by itself. */
export interface DatabaseSettings {
  partitioned?: boolean
  /** Number of shards. */
  q?: number
}

/** Stored documents change by revision: every write names the one it replaces. */
type Stored<T> = T & { _id: string; _rev?: string; _deleted?: true }

/** Attempts to change a document that others change as well: two seconds, with the waits between. */
const MOST_CONFLICTS = 12
/** Looks for another writer to give in: some two seconds, with the waits between. */
const LOOKS = 10

/**
 * One CouchDB database. Methods throw CouchError, and are retried by policy: until the value has come, a
 * stream begins, or, for {@link bulkGet} and uncompressed attachments, to the end. See also {@link once}.
 */
export class CouchDatabase {
  readonly client: CouchClient
  readonly name: string

  constructor(client: CouchClient, name: string) {
    this.client = client
    this.name = name
  }

  on(client: CouchClient): CouchDatabase {
    return new CouchDatabase(client, this.name)
  }

  /** Returns the same database, on its own server, by a client that works as another does. */
  like(client: CouchClient): CouchDatabase {
    return this.on(this.client.like(client))
  }

  /** Returns whether both are one database: the same name on the same server. */
  isSame({ client, name }: CouchDatabase): boolean {
    return this.name === name && this.client.isSameServer(client)
  }

  /** Returns the same database with one attempt of each call. */
  get once(): CouchDatabase {
    return this.on(this.client.once)
  }

  async info(): Promise<DatabaseInfo> {
    return this.client.json({ path: [this.name] }, Info)
  }

  /** Returns what the server's clock says, in milliseconds since the epoch, to the second. @throws CouchError */
  time(): Promise<number> {
    return this.client.answer({ path: [this.name] }, (_json, _status, { date }) => {
      const time = Date.parse(String(date))
      if (Number.isFinite(time)) return time
      const reason = 'the answer has no Date: the clocks of host and server cannot be compared'
      throw new CouchError(this.name, { error: 'bad_answer', reason })
    })
  }

  /** Returns the database's info, if any. @throws CouchError when this node does not learn of it in time */
  async find(): Promise<DatabaseInfo | null> {
    const retrier = this.client.retrier()
    for (;;) {
      try {
        return await this.info()
      } catch (error) {
        if (!isMissing(error)) throw error
      }
      if (!(await anyNodeKnows(this.client, this.name))) return null
      await retrier.failed(notKnownYet(this.name))
    }
  }

  /** Creates the database with `settings`. Does nothing, and needs no right to create, when it exists. */
  async ensure(settings: DatabaseSettings = {}): Promise<void> {
    if (!(await this.find())) await this.#create(settings)
  }

  async #create({ partitioned, q }: DatabaseSettings): Promise<void> {
    const query = { partitioned: partitioned || undefined, q }
    try {
      await this.client.send({ method: 'PUT', path: [this.name], query, write: true })
    } catch (refusal) {
      // Somebody else was first, or the reply to us was lost.
      if (refusal instanceof CouchError && refusal.error === 'file_exists') return
      if (!(refusal instanceof CouchError) || refusal.retryable) throw refusal
      throw notCreated(this.name, query, refusal)
    }
  }

  /** Deletes the database with all that it holds, if there is one. */
  async destroy(): Promise<void> {
    const deleted = this.client.send({ method: 'DELETE', path: [this.name], write: true })
    await deleted.catch(expected(isMissing, undefined))
  }

  /** Checks that the database takes writes, by a local document that nobody else sees. @throws CouchError */
  async probeWrite(): Promise<void> {
    const path = [this.name, '_local/db_backups_probe']
    const written = this.client.send({ method: 'PUT', path, json: {}, write: true })
    // A conflict shows that the document is there.
    await written.catch(expected(isConflict, undefined))
  }

  /** Reads a document; `null` when there is none. */
  async get<T extends object>(id: string): Promise<(T & { _id: string; _rev: string }) | null> {
    const found = this.client.answer({ path: [this.name, id] }, (json) => {
      const doc = json as T & { _id: string; _rev: string }
      if (doc?._id !== id || typeof doc._rev !== 'string') throw malformed(this.name, '_id and _rev')
      return doc
    })
    return found.catch(expected(isMissing, null))
  }

  /** Reads a document only as far as its type; `undefined` when there is no document, or no type. */
  async type(id: string): Promise<string | undefined> {
    const type = this.readStream(id, (body) => stringMember(body, 'type'))
    return type.catch(expected(isMissing, undefined))
  }

  /** Reads a document's JSON as it arrives. `read` is called anew for each attempt. */
  async readStream<T>(
    id: string,
    read: (body: AsyncIterable<Buffer>) => Promise<T>,
    query?: CouchRequest['query']
  ): Promise<T> {
    const { once } = this.client
    return this.client.retry(async () => read((await once.stream({ path: [this.name, id], query })).body))
  }

  /**
   * Writes a document and returns its new revision. @throws CouchError (409) when another writer has won, and also when
   * an attempt of this call was stored, its answer was lost and the next attempt finds the document there
   */
  async put<T extends object>(doc: Stored<T>): Promise<string> {
    return this.client.retry(async () => {
      const { rev, majority } = await this.putUnconfirmed(doc)
      if (!majority) await this.#confirmAccepted({ id: doc._id, rev }, doc._rev)
      return rev
    })
  }

  /** Writes a document. Without a `majority` of replicas, others may accept another writer's version. */
  async putUnconfirmed<T extends object>(doc: Stored<T>): Promise<{ rev: string; majority: boolean }> {
    const request = { method: 'PUT' as const, path: [this.name, doc._id], json: doc, write: true }
    return this.client.answer(request, (json, status) => ({
      rev: checked(Written, json, this.name).rev,
      majority: status !== 202
    }))
  }

  /**
   * Makes sure that a write accepted by some replicas only (202) stands alone: of two writers over the revision
   * `over`, the one whose version CouchDB does not show gives in. @throws CouchError (409) if taken back
   */
  async #confirmAccepted({ id, rev }: Revision, over: string | undefined): Promise<void> {
    const isOurs = (leaf: Leaf) => historyOf(leaf).includes(rev)
    const isRival = (leaf: Leaf) =>
      !leaf.deleted && leaf.rev !== over && (over === undefined || historyOf(leaf).includes(over))
    let leaves: Leaf[] = []
    for (let look = 1; look <= LOOKS; look++) {
      leaves = (await this.leaves(id, { revs: true })).filter((leaf) => isOurs(leaf) || isRival(leaf))
      if (leaves.length > 0 && leaves.every(isOurs)) return
      if (leaves.length > 0 && !isOurs(leaves[0])) break
      await this.client.afterConflict(look)
    }
    if (leaves.length === 0) throw malformed(this.name, 'revision that was accepted')
    await this.delete(id, rev)
    throw new CouchError(`PUT /${this.name}/${shownName(id)}`, {
      status: 409,
      error: 'conflict',
      reason: 'other replicas of the document have accepted another version'
    })
  }

  /** Returns every leaf that most replicas of a document know, the one that CouchDB shows first. */
  async leaves(id: string, query: { revs?: boolean } = {}): Promise<Leaf[]> {
    const path = [this.name, '_bulk_get']
    const request: CouchRequest = { method: 'POST', path, query, json: { docs: [{ id }] } }
    const leaves = this.client.answer(request, (json) => sortLeaves(leavesOf(json, this.name)))
    return leaves.catch(expected(isMissing, []))
  }

  /** Returns the bytes of a document's JSON without attachments; `undefined` if the server does not tell. */
  async size(id: string): Promise<number | undefined> {
    const response = await this.client.stream({ method: 'HEAD', path: [this.name, id] })
    response.discard()
    const length = response.headers['content-length']
    return length === undefined ? undefined : Number(length)
  }

  async delete(id: string, rev: string): Promise<void> {
    await this.client.send({ method: 'DELETE', path: [this.name, id], query: { rev }, write: true })
  }

  /** Writes what `change` makes of a document, unless that is `null`; again after conflicts, lost replies. */
  async modify<T extends object>(
    id: string,
    change: (current: (T & { _id: string; _rev: string }) | null) => T | null
  ): Promise<(T & { _id: string; _rev: string }) | null> {
    let sent: string | undefined
    return this.untilNoConflict(async () => {
      const current = await this.get<T>(id)
      if (current && membersOf(current) === sent) return current
      const next = change(current)
      if (next === null) return current
      sent = membersOf(next)
      const _rev = await this.put({ ...next, _id: id, ...(current ? { _rev: current._rev } : undefined) })
      return { ...next, _id: id, _rev }
    })
  }

  /**
   * Attempts to read and write a document that others change as well, again after each conflict.
   * @param work is given the number of its attempt, from 1 @param most attempts
   */
  async untilNoConflict<T>(
    work: (attempt: number) => Promise<T>,
    isConflicting: (error: unknown) => boolean = isConflict,
    most = MOST_CONFLICTS
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work(attempt)
      } catch (error) {
        if (!isConflicting(error) || attempt >= most) throw error
      }
      await this.client.afterConflict(attempt)
    }
  }

  /** Returns a page of changes, which is asked for when it is read. */
  changes(range: ChangesRange): ChangesPage {
    return new ChangesPage(this.client, this.name, range)
  }

  /** Returns how many changes come after a sequence; `undefined` where the server does not tell. */
  async countChanges(since: string): Promise<number | undefined> {
    return this.client.retry(async () => {
      const page = this.once.changes({ since, limit: 1, includeDocs: false })
      let count = 0
      for await (const changes of page) count += changes.length
      return page.pending === undefined ? undefined : count + page.pending
    })
  }

  /** Returns ids and revisions in a range of ids, from one replica of each shard; none without a database. */
  async rows(range: AllDocsRange): Promise<Revision[]> {
    const rows = this.client.retry(async () => {
      const all: Revision[] = []
      for await (const group of this.#allDocs(range)) for (const { id, rev } of group) all.push({ id, rev })
      return all
    })
    return rows.catch(expected(isMissing, []))
  }

  /** Reads documents in a range, ordered by id: current revisions, and with `includeDocs` the documents. */
  allDocs(range: AllDocsRange = {}): AsyncGenerator<Row[]> {
    return untilBegun(this.client, () => this.#allDocs(range))
  }

  async *#allDocs(range: AllDocsRange): AsyncGenerator<Row[]> {
    const response = await this.client.once.stream(allDocsRequest(this.name, range))
    yield* new RowAnswer(response.body, 'rows', allDocsReader())
  }

  /** Streams documents at given revisions, else at winning ones, which may be deleted. No id comes twice. */
  bulkGet(revisions: readonly Wanted[], options: { attachments: boolean }): AsyncGenerator<FoundDocument> {
    const call = (part: readonly Wanted[]) => this.#bulkGet(part, options)
    return inParts(revisions, this.client.size, call, jsonBytes, isTooLarge)
  }

  async *#bulkGet(
    revisions: readonly Wanted[],
    options: { attachments: boolean }
  ): AsyncGenerator<FoundDocument> {
    const missing = new Map(revisions.map((revision) => [revision.id, revision]))
    const retrier = this.client.retrier()
    while (missing.size > 0) {
      try {
        const request = bulkGetRequest(this.name, [...missing.values()], options)
        const { body } = await this.client.once.stream(request)
        for await (const rows of new RowAnswer(body, 'results', { row: (row) => row })) {
          for (const row of rows) {
            const result = await inTurnsIfLong(row, bulkGetRow(row))
            const pause = turnAfter(row)
            if (pause) await pause
            if (missing.delete(result.id)) yield result
          }
        }
        if (missing.size > 0) throw malformed(this.name, 'result for every document')
      } catch (error) {
        await retrier.failed(error)
      }
    }
  }

  /** Deletes single revisions, and returns a result for each, in their order. */
  async deleteRevisions(revisions: readonly Revision[]): Promise<BulkResult[]> {
    if (revisions.length === 0) return []
    const deletion = ({ id, rev }: Revision) => ({ _id: id, _rev: rev, _deleted: true })
    return this.bulkDocs(revisions.map((revision) => Buffer.from(JSON.stringify(deletion(revision)))))
  }

  /** Writes documents with new edits, and returns a result for each, in their order. */
  async bulkDocs(docs: readonly Uint8Array[]): Promise<BulkResult[]> {
    const results: BulkResult[] = []
    const bytesOf = ({ length }: Uint8Array) => length + 1
    const call = async (part: readonly Uint8Array[]) => {
      const { results } = await this.writeBulk(BulkBody.of(true, part))
      return results
    }
    for await (const result of inParts(docs, this.client.size, call, bytesOf, isTooLarge))
      results.push(result)
    return results
  }

  /** Writes documents in one request. Without new edits, the answer holds failures only. */
  writeBulk(body: BulkBody): Promise<BulkAnswer> {
    return this.client.answer(bulkRequest(this.name, body.bytes()), (json, status) => {
      const results = bulkResults(checked(BulkResults, json, this.name))
      if (body.newEdits && results.length !== body.count)
        throw malformed(this.name, 'a result for each document')
      return { results, accepted: status === 202 }
    })
  }

  /** Returns the documents that a Mango query finds, without any index of its own. */
  async query(query: object): Promise<unknown[]> {
    const path = [this.name, '_find']
    return (await this.client.json({ method: 'POST', path, json: query }, Query)).docs
  }

  /** Returns the ids of those revisions that the database does not have. */
  async revsDiff(revisions: readonly Revision[]): Promise<Set<string>> {
    const missing = new Set<string>()
    const diff = (part: readonly Revision[]) => this.#revsDiff(part)
    const bytesOf = ({ id, rev }: Revision) => jsonBytes([id, rev])
    for await (const id of inParts(revisions, this.client.size, diff, bytesOf, isOfOneRevision))
      missing.add(id)
    return missing
  }

  async #revsDiff(revisions: readonly Revision[]): Promise<string[]> {
    try {
      const request = revsDiffRequest(this.name, revisions)
      const reply = await this.client.json(request, RevsDiff)
      return Object.keys(reply).filter((id) => (reply[id].missing?.length ?? 0) > 0)
    } catch (error) {
      if (revisions.length > 1 || !isIllegalId(error)) throw error
      // The database cannot have it, since it is partitioned.
      return [revisions[0].id]
    }
  }

  /** Opens an attachment; continues an uncompressed one where it broke. `gzip` gives it as it is stored. */
  async attachment(
    id: string,
    name: string,
    { rev, gzip }: { rev?: string; gzip?: boolean } = {}
  ): Promise<CouchResponse> {
    const headers = { accept: '*/*', ...(gzip && { 'accept-encoding': 'gzip' }) }
    const request = { path: [this.name, id, name], query: { rev }, headers }
    return gzip ? this.client.stream(request) : openResumable(this.client, request)
  }

  /**
   * Stores an attachment on the revision `rev`, in any time. @throws CouchError (409 on a conflict)
   * @param deadline ends the request; without it, the waits for a connection and for the answer have one
   */
  async putAttachment(
    id: string,
    name: string,
    rev: string,
    contentType: string,
    data: StreamedBody,
    deadline?: AbortSignal
  ): Promise<string> {
    const request = attachmentUpload(this.name, { id, rev }, name, contentType, data)
    return this.client.retry(async () => {
      const abort = new AbortController()
      const silence = new Silence(this.client.settings.control, () => abort.abort())
      const body = () => (deadline ? data.open() : silence.without(data.open()))
      try {
        if (!deadline) silence.wait()
        const response = await this.client.once.stream({ ...request, body }, deadline ?? abort.signal)
        const { rev: written } = checked(Written, await readJson(response), this.name)
        if (response.status === 202) await this.#confirmAccepted({ id, rev: written }, rev)
        return written
      } finally {
        silence.end()
      }
    })
  }

  /**
   * Streams a document with its attachments in one request. @throws CouchError with status 409 on a conflict
   * @param document pieces of the JSON whose `_attachments` say `"follows":true`, in the order of `parts`
   * @returns the new revision; `null` with `newEdits: false`
   */
  async putWithAttachments(
    id: string,
    document: readonly Buffer[],
    parts: readonly AttachmentPart[],
    write: StreamedWrite
  ): Promise<string | null> {
    const request = await documentUpload(this.name, id, document, parts, write)
    if (write.newEdits) return (await this.#upload(request, write, Written)).rev
    await this.#upload(request, write, Type.Unknown())
    return null
  }

  /** Writes one document whose JSON is a stream. The answer is that of {@link bulkDocs}. */
  async putStream(json: () => AsyncIterable<Uint8Array>, write: StreamedWrite): Promise<BulkResult[]> {
    const body = () => tellingSent(bulkStream(write.newEdits, json()), write.sent)
    return bulkResults(await this.#upload(bulkRequest(this.name, body), write, BulkResults))
  }

  async #upload<S extends TSchema>(
    request: CouchRequest,
    { deadline }: StreamedWrite,
    schema: S
  ): Promise<Static<S>> {
    const { once } = this.client
    return this.client.retry(async () =>
      checked(schema, await readJson(await once.stream(request, deadline)), this.name)
    )
  }
}

/** Returns the bytes of an item of an array in a body, with some for commas and brackets. */
const jsonBytes = (item: unknown): number => Buffer.byteLength(JSON.stringify(item)) + 8

const isIllegalId = (error: unknown): boolean =>
  error instanceof CouchError && error.error === 'illegal_docid'

/** Returns whether one revision may fail a request for several, as an id that a database cannot have does. */
const isOfOneRevision = (error: unknown): boolean => isTooLarge(error) || isIllegalId(error)

const notKnownYet = (name: string) =>
  new CouchError(`GET /${name}`, {
    error: 'not_known_yet',
    reason: 'the node that was asked does not know the database, but another node does',
    retryable: true
  })

function notCreated(name: string, settings: DatabaseSettings, refusal: CouchError): CouchError {
  const asked = Object.entries(settings).flatMap(([key, value]) =>
    value === undefined ? [] : `${key}=${value}`
  )
  if (asked.length === 0) return refusal
  const { status, error, reason } = refusal
  const advice = `it was to be created with ${asked.join(' and ')}, as in the backup; create it yourself, then restore again`
  return new CouchError(`PUT /${name}`, { status, error, reason: `${reason} (${advice})` })
}

function membersOf(doc: object): string {
  return JSON.stringify({ ...doc, _id: undefined, _rev: undefined, _attachments: undefined })
}
