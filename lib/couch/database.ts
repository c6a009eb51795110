import { decodeValue, MemberCursor, objectsOf } from '../json/members.js'
import { ELEMENT, type JsonPath } from '../json/scanner.js'
import { inTurns, inTurnsIfLong, type Steps, turnAfter } from '../waits/steps.js'
import { BulkBody } from './bulk-body.js'
import { type CouchClient, type CouchRequest, type CouchResponse, fitsUrl, readJson } from './client.js'
import { CouchError, isConflict, isMissing, isNotFound, isTooLarge } from './errors.js'
import { jsonPart } from './json-part.js'
import { jsonRows, rowMemory, stringMember, type Trailer } from './json-rows.js'
import {
  type AttachmentPart,
  inPieces,
  type MultipartBody,
  multipartRelated,
  totalLength
} from './multipart.js'
import { anyNodeKnows } from './nodes.js'
import { inParts } from './request-size.js'
import { openResumable } from './resumable.js'
import { tellingSent } from './send-or-find.js'
import { sortLeaves, winnerOf } from './winning-revision.js'

export interface DatabaseInfo {
  doc_count: number
  /** Absent where the server does not count them. */
  doc_del_count?: number
  /** Another one when the database was created again; in CouchDB 2 always `"0"`. */
  instance_start_time?: string
  /** Begins with the number of purges. Opaque beyond that. */
  purge_seq?: string | number
  /** Begins with the number of changes. Opaque beyond that. */
  update_seq?: string | number
  props?: { partitioned?: boolean }
  /** Shards, and copies of each. */
  cluster?: { q?: number; n?: number }
}

/** Tells whether each shard of a database has several copies, of which one may lag behind the others. */
export const isReplicated = ({ cluster }: DatabaseInfo): boolean => (cluster?.n ?? 1) > 1

/** How a database is created. `undefined`: as the server does by itself. */
export interface DatabaseSettings {
  partitioned?: boolean
  /** Number of shards. */
  q?: number
}

export interface Revision {
  id: string
  rev: string
}

/** One row of the changes feed. */
export interface Change extends Revision {
  /** Opaque; `null` where CouchDB left it out (`seq_interval`). */
  seq: string | null
  deleted: boolean
  /** More than one revision is a leaf, deleted ones included. Told in pages without documents. */
  branched: boolean
  /** The document as CouchDB sent it, to be read by `readDocument`: more may follow it; `null` when documents were not asked for, or its body is gone. */
  doc: Uint8Array | null
}

export interface ChangesPage {
  since: string
  limit?: number
  includeDocs: boolean
}

/** Filled when the page has been read. */
export interface ChangesEnd {
  lastSeq: string
  /** Changes after `lastSeq`, when the server told. */
  pending: number | undefined
}

/** What CouchDB says of one document of a `_bulk_docs`. */
export interface BulkResult {
  id: string
  rev?: string
  error?: string
  reason?: string
  /** Fewer than the majority of the shard's copies took the document; the others may hold another version. */
  accepted?: boolean
}

/** What CouchDB says of a `_bulk_docs`. */
export interface BulkAnswer {
  /** Failures only where the body has no new edits. */
  results: BulkResult[]
  /** Fewer than the majority of a shard's copies took some of the documents. */
  accepted: boolean
}

/** One document of a `_bulk_get`. */
export interface FoundDocument {
  id: string
  /** `null`: the revision, or the document, is not there. */
  doc: Uint8Array | null
  /** Revisions that conflict with it, deleted ones left out. Told where no revision was asked for. */
  conflicts: string[]
}

/** One of the newest revisions of a document, of which conflicts and copies that lag make several. */
export interface Leaf {
  rev: string
  deleted: boolean
  doc: Record<string, unknown>
}

/** One document of `_all_docs`. */
export interface Row extends Revision {
  /** With stubs, to be read by `readDocument`: more may follow it; `null` when documents were not asked for, or it was deleted meanwhile. */
  doc: Uint8Array | null
}

export interface AllDocsRange {
  from?: string
  to?: string
  limit?: number
  includeDocs?: boolean
}

/** How a body that is a stream is written. */
export interface StreamedWrite {
  /** `false` keeps the revision that the document names. */
  newEdits: boolean
  /** Called when the body has been sent. */
  sent: () => void
  /** Ends the request. */
  deadline: AbortSignal
}

/** Bytes to be stored, which can be read several times. */
export interface AttachmentData {
  readonly length: number
  open(): AsyncIterable<Uint8Array>
}

/** Stored documents change by revision: every write names the one it replaces. */
export type Stored<T> = T & { _id: string; _rev?: string; _deleted?: true }

const QUOTE = 0x22
const BACKSLASH = 0x5c

/** Looks for another writer to give in: some two seconds, with the waits between. */
const CONFIRM_LOOKS = 10
/** Attempts to change a document that others change as well: two seconds, with the waits between. */
const MODIFY_ATTEMPTS = 12

/** How often CouchDB computes a row's sequence: it is costly, and a page's end always has one. */
const SEQ_INTERVAL = 1000

/** One CouchDB database. Methods throw CouchError. */
export class CouchDatabase {
  readonly client: CouchClient
  readonly name: string

  constructor(client: CouchClient, name: string) {
    this.client = client
    this.name = name
  }

  /** The same database by another client. */
  on(client: CouchClient): CouchDatabase {
    return new CouchDatabase(client, this.name)
  }

  async info(): Promise<DatabaseInfo> {
    const info = await this.client.json<DatabaseInfo>({ path: [this.name] })
    if (typeof info.doc_count !== 'number') throw malformed(this.name, 'doc_count')
    return info
  }

  /**
   * Returns what the server tells of the database; `null` when there is none.
   * @throws CouchError also when another node of the cluster knows the database, and this one has not learned of it in time
   */
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

  /**
   * Creates the database unless it exists; needs no right to create databases when it does.
   * @param settings for a database that is created; one that exists stays as it is
   */
  async ensure(settings: DatabaseSettings = {}): Promise<void> {
    if (!(await this.find())) await this.#create(settings)
  }

  async #create({ partitioned, q }: DatabaseSettings): Promise<void> {
    const query = { partitioned: partitioned || undefined, q }
    try {
      await this.client.json({ method: 'PUT', path: [this.name], query, write: true })
    } catch (refusal) {
      // Somebody else was first, or the reply to us was lost.
      if (refusal instanceof CouchError && refusal.error === 'file_exists') return
      throw refusal instanceof CouchError && !refusal.retryable
        ? notCreated(this.name, query, refusal)
        : refusal
    }
  }

  /**
   * Makes sure that the database takes documents, by one that no backup, replication or client sees.
   * @throws CouchError when it does not
   */
  async probeWrite(): Promise<void> {
    const path = [this.name, '_local/db_backups_probe']
    await this.client.json({ method: 'PUT', path, json: {}, write: true }).catch((error: unknown) => {
      // It is there.
      if (!isConflict(error)) throw error
    })
  }

  /** @returns `null` when there is no such document. */
  async get<T extends object>(id: string): Promise<(T & { _id: string; _rev: string }) | null> {
    try {
      const doc = await this.client.json<T & { _id: string; _rev: string }>({ path: [this.name, id] })
      if (doc?._id !== id || typeof doc._rev !== 'string') throw malformed(this.name, '_id and _rev')
      return doc
    } catch (error) {
      if (isMissing(error)) return null
      throw error
    }
  }

  /** Reads no more of a document than it takes to know its type; `null` when there is no such document. */
  async type(id: string): Promise<{ type: string | undefined } | null> {
    try {
      return { type: await this.client.retry(() => this.#type(id)) }
    } catch (error) {
      if (isMissing(error)) return null
      throw error
    }
  }

  async #type(id: string): Promise<string | undefined> {
    const { body } = await this.client.streamOnce({ path: [this.name, id] })
    return stringMember(body, 'type')
  }

  /**
   * Writes a document and returns its new revision.
   * @throws CouchError with status 409 when `_rev` is not the current revision, or another writer won on most copies
   */
  async put<T extends object>(doc: Stored<T>): Promise<string> {
    return this.client.retry(async () => {
      const { rev, majority } = await this.putOnce(doc)
      if (!majority) await this.#confirmAccepted({ id: doc._id, rev }, doc._rev)
      return rev
    })
  }

  /** One attempt of {@link put}; `majority` tells whether most copies of the document have accepted the write. */
  async putOnce<T extends object>(doc: Stored<T>): Promise<{ rev: string; majority: boolean }> {
    const { status, json } = await this.client.answerOnce<unknown>({
      method: 'PUT',
      path: [this.name, doc._id],
      json: doc,
      write: true
    })
    return { rev: revisionOf(json, this.name), majority: status !== 202 }
  }

  /**
   * Makes sure that a write that only some copies have accepted (202) stands alone: copies may be down, or have accepted
   * another writer's. Of two writers that see each other, the one whose version CouchDB does not show gives in; a writer
   * that was accepted by most copies does not look, so the other gives in to it as well, after a while.
   * @param over revision that was written over
   * @throws CouchError with status 409 when the write was taken back
   */
  async #confirmAccepted({ id, rev }: Revision, over: string | undefined): Promise<void> {
    const isOurs = (leaf: Leaf) => historyOf(leaf).includes(rev)
    const isRival = (leaf: Leaf) =>
      !leaf.deleted && leaf.rev !== over && (over === undefined || historyOf(leaf).includes(over))
    let leaves: Leaf[] = []
    for (let look = 1; look <= CONFIRM_LOOKS; look++) {
      leaves = (await this.leaves(id, { revs: true })).filter((leaf) => isOurs(leaf) || isRival(leaf))
      if (leaves.length > 0 && leaves.every(isOurs)) return
      if (leaves.length > 0 && !isOurs(leaves[0])) break
      await this.client.afterConflict(look)
    }
    if (leaves.length === 0) throw malformed(this.name, 'revision that was accepted')
    await this.delete(id, rev)
    throw new CouchError(`PUT /${this.name}/${id.slice(0, 120)}`, {
      status: 409,
      error: 'conflict',
      reason: 'other copies of the document have accepted another version'
    })
  }

  /** Returns every leaf that most copies of a document know, the one that CouchDB shows first. */
  async leaves(id: string, query: { revs?: boolean } = {}): Promise<Leaf[]> {
    const path = [this.name, '_bulk_get']
    const request: CouchRequest = { method: 'POST', path, query, json: { docs: [{ id }] } }
    try {
      return sortLeaves(leavesOf(await this.client.json(request), this.name))
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  }

  /** A document's current revision, read without its body; `null` when there is no such document. */
  async revision(id: string): Promise<string | null> {
    try {
      const response = await this.client.stream({ method: 'HEAD', path: [this.name, id] })
      response.discard()
      const etag = /^"([0-9]+-[0-9a-f]{32})"$/.exec(String(response.headers.etag))
      return etag ? etag[1] : ((await this.get(id))?._rev ?? null)
    } catch (error) {
      // A HEAD has no body that tells whose answer it is.
      if (isNotFound(error)) return (await this.get(id))?._rev ?? null
      throw error
    }
  }

  /** Bytes of a document's JSON without its attachments; `undefined` when the server does not tell. */
  async size(id: string): Promise<number | undefined> {
    const response = await this.client.stream({ method: 'HEAD', path: [this.name, id] })
    response.discard()
    const length = response.headers['content-length']
    return length === undefined ? undefined : Number(length)
  }

  async delete(id: string, rev: string): Promise<void> {
    await this.client.json({ method: 'DELETE', path: [this.name, id], query: { rev }, write: true })
  }

  /**
   * Reads `id`, lets `change` make the new version, and writes it, again after each conflict.
   * A reply that was lost after the write took effect is a conflict too: what was written is known again then.
   *
   * @param change returns `null` to leave the document as it is
   */
  async modify<T extends object>(
    id: string,
    change: (current: (T & { _id: string; _rev: string }) | null) => T | null
  ): Promise<T | null> {
    let sent: string | undefined
    for (let attempt = 1; ; attempt++) {
      const current = await this.get<T>(id)
      if (current && membersOf(current) === sent) return current
      const next = change(current)
      if (next === null) return current
      try {
        await this.put({ ...next, _id: id, ...(current ? { _rev: current._rev } : undefined) })
        return next
      } catch (error) {
        if (!isConflict(error) || attempt >= MODIFY_ATTEMPTS) throw error
        sent = membersOf(next)
      }
      await this.client.afterConflict(attempt)
    }
  }

  /**
   * One page of the changes feed, in order. Rows come in groups, as they arrive; a group is valid until the next is asked
   * for.
   * @param end filled when the generator has ended
   */
  async *changes(page: ChangesPage, end: ChangesEnd): AsyncGenerator<Change[]> {
    const response = await this.client.streamOnce({
      path: [this.name, '_changes'],
      query: {
        since: page.since,
        limit: page.limit,
        seq_interval: SEQ_INTERVAL,
        include_docs: page.includeDocs || undefined,
        conflicts: page.includeDocs || undefined,
        att_encoding_info: page.includeDocs || undefined,
        style: page.includeDocs ? undefined : 'all_docs'
      }
    })
    const trailer: Trailer = {}
    yield* readRows(jsonRows(response.body, 'results', trailer, rowMemory()), readChange)
    const { last_seq: lastSeq, pending } = trailer
    if (typeof lastSeq !== 'string' && typeof lastSeq !== 'number') throw malformed(this.name, 'last_seq')
    end.lastSeq = String(lastSeq)
    end.pending = typeof pending === 'number' ? pending : undefined
  }

  /** Ids and revisions in a range of ids; none where the database does not exist. One copy of each shard is asked. */
  async rows(range: AllDocsRange): Promise<Revision[]> {
    try {
      return await this.client.retry(async () => {
        const all: Revision[] = []
        for await (const rows of this.allDocs(range)) for (const { id, rev } of rows) all.push({ id, rev })
        return all
      })
    } catch (error) {
      if (isMissing(error)) return []
      throw error
    }
  }

  /** Documents in a range of ids, ordered by id: their current revisions, and with `includeDocs` all of them. */
  async *allDocs(range: AllDocsRange = {}): AsyncGenerator<Row[]> {
    const response = await this.client.streamOnce(this.#allDocsRequest(range))
    yield* readRows(jsonRows(response.body, 'rows'), readAllDocsRow)
  }

  #allDocsRequest({ from, to, limit, includeDocs }: AllDocsRange): CouchRequest {
    const path = [this.name, '_all_docs']
    const json = (key: string | undefined) => (key === undefined ? undefined : JSON.stringify(key))
    const options = {
      limit,
      include_docs: includeDocs || undefined,
      att_encoding_info: includeDocs || undefined
    }
    const query = { startkey: json(from), endkey: json(to), ...options }
    if (fitsUrl({ path, query })) return { path, query }
    return { method: 'POST', path, json: { startkey: from, endkey: to, ...options } }
  }

  /**
   * Documents as CouchDB sends them, each as it arrives: at the given revision, or at the one that wins where none is
   * given, which may be deleted.
   * @param revisions no id twice
   */
  bulkGet(
    revisions: readonly { id: string; rev?: string }[],
    options: { attachments: boolean }
  ): AsyncGenerator<FoundDocument> {
    const call = (part: typeof revisions) => this.#bulkGet(part, options)
    return inParts(revisions, this.client.size, call, jsonBytes, isTooLarge)
  }

  async *#bulkGet(
    revisions: readonly { id: string; rev?: string }[],
    options: { attachments: boolean }
  ): AsyncGenerator<FoundDocument> {
    const missing = new Map(revisions.map((revision) => [revision.id, revision]))
    const retrier = this.client.retrier()
    while (missing.size > 0) {
      try {
        const response = await this.client.streamOnce(this.#bulkGetRequest([...missing.values()], options))
        for await (const rows of jsonRows(response.body, 'results')) {
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

  /** Writes documents with new edits, and returns a result for each, in their order. */
  async bulkDocs(docs: readonly Uint8Array[]): Promise<BulkResult[]> {
    const results: BulkResult[] = []
    const write = (part: readonly Uint8Array[]) => this.#bulkDocs(BulkBody.of(true, part))
    const bytesOf = ({ length }: Uint8Array) => length + 1
    for await (const result of inParts(docs, this.client.size, write, bytesOf, isTooLarge))
      results.push(result)
    return results
  }

  async *#bulkDocs(body: BulkBody): AsyncGenerator<BulkResult> {
    yield* (await this.client.retry(() => this.bulkDocsOnce(body))).results
  }

  /**
   * Writes documents. One attempt, for callers that tell faults from refusals themselves. The answer to a body without new
   * edits holds failures only; any other has a result for each document, in their order.
   */
  async bulkDocsOnce(body: BulkBody): Promise<BulkAnswer> {
    const { status, json } = await this.client.answerOnce({
      method: 'POST',
      path: [this.name, '_bulk_docs'],
      body: body.bytes(),
      headers: { 'content-type': 'application/json' },
      write: true
    })
    const results = bulkResults(json, this.name)
    if (body.newEdits && results.length !== body.count) {
      throw malformed(this.name, 'a result for each document')
    }
    return { results, accepted: status === 202 }
  }

  /** Ids of those revisions that the database does not have. */
  async revsDiff(revisions: readonly Revision[]): Promise<Set<string>> {
    const missing = new Set<string>()
    const diff = (part: readonly Revision[]) => this.#revsDiff(part)
    const bytesOf = ({ id, rev }: Revision) => jsonBytes([id, rev])
    for await (const id of inParts(revisions, this.client.size, diff, bytesOf, isOfOneRevision))
      missing.add(id)
    return missing
  }

  async *#revsDiff(revisions: readonly Revision[]): AsyncGenerator<string> {
    try {
      const reply = await this.client.json<Record<string, { missing?: string[] }>>({
        method: 'POST',
        path: [this.name, '_revs_diff'],
        json: Object.fromEntries(revisions.map(({ id, rev }) => [id, [rev]]))
      })
      yield* Object.keys(reply).filter((id) => (reply[id].missing?.length ?? 0) > 0)
    } catch (error) {
      if (revisions.length > 1 || !isIllegalId(error)) throw error
      // The database cannot have it, since it is partitioned.
      yield revisions[0].id
    }
  }

  #bulkGetRequest(
    revisions: readonly { id: string; rev?: string }[],
    { attachments }: { attachments: boolean }
  ): CouchRequest {
    return {
      method: 'POST',
      path: [this.name, '_bulk_get'],
      query: attachments ? { attachments } : { att_encoding_info: true },
      json: { docs: revisions.map(({ id, rev }) => ({ id, rev })) }
    }
  }

  /**
   * A document's JSON with its attachments inline, as it arrives. The database makes it in its memory.
   * @throws CouchError with status 404 when the revision is gone
   */
  documentWithAttachments(id: string, rev: string): AsyncGenerator<Uint8Array> {
    return this.#partOf(id, rev, [])
  }

  /**
   * An attachment's base64 as it arrives, whatever its name. The database makes it in its memory, the document's other
   * attachments beside it.
   * @throws CouchError with status 404 when the revision or the attachment is gone
   */
  async *attachmentText(id: string, rev: string, name: string): AsyncGenerator<Uint8Array> {
    for await (const piece of this.#partOf(id, rev, ['_attachments', name, 'data'])) {
      const text = piece.filter((c) => c !== QUOTE && c !== BACKSLASH)
      if (text.length > 0) yield text
    }
  }

  async *#partOf(id: string, rev: string, path: readonly string[]): AsyncGenerator<Uint8Array> {
    const { body } = await this.client.streamOnce(this.#bulkGetRequest([{ id, rev }], { attachments: true }))
    const found: JsonPath = ['results', ELEMENT, 'docs', ELEMENT, 'ok', ...path]
    const refused: JsonPath = ['results', ELEMENT, 'docs', ELEMENT, 'error']
    const refusal = yield* jsonPart(body, found, refused)
    if (refusal === undefined) return
    rejectServerError(refusal)
    throw new CouchError(`document "${id.slice(0, 120)}"`, {
      status: 404,
      error: 'not_found',
      reason: 'missing'
    })
  }

  /**
   * Opens an attachment's bytes. One attempt, but for silence: a copy whose node goes down falls silent, so the attachment
   * is asked for again after a short silence first, and after longer ones later. The body goes on where it broke, unless
   * it is compressed.
   * @param options.gzip takes them compressed where they are stored so; `content-encoding` tells
   */
  async attachment(
    id: string,
    name: string,
    { rev, gzip }: { rev?: string; gzip?: boolean } = {}
  ): Promise<CouchResponse> {
    const headers = { accept: '*/*', ...(gzip && { 'accept-encoding': 'gzip' }) }
    const request = { path: [this.name, id, name], query: { rev }, headers }
    return gzip ? this.client.streamOnce(request) : openResumable(this.client, request)
  }

  /**
   * Stores an attachment on the current revision `rev`, and returns the new revision. The body may take any time, as long
   * as the server goes on reading it; the wait for a connection and that for the answer have a deadline.
   * @throws CouchError with status 409 when `rev` is not the current revision
   */
  async putAttachment(
    id: string,
    name: string,
    rev: string,
    contentType: string,
    data: AttachmentData
  ): Promise<string> {
    return this.client.retry(async () => {
      const deadline = new DeadlineAroundBody(this.client.settings.control)
      const body = () => deadline.without(data.open())
      const options = { length: data.length, deadline: deadline.signal }
      try {
        return await this.putAttachmentStream(id, name, rev, contentType, body, options)
      } finally {
        deadline.end()
      }
    })
  }

  /**
   * Stores an attachment on revision `rev`, and returns the new revision. One attempt.
   * @throws CouchError with status 409 when `rev` is not the current revision
   */
  async putAttachmentStream(
    id: string,
    name: string,
    rev: string,
    contentType: string,
    data: () => AsyncIterable<Uint8Array>,
    { length, deadline }: { length?: number; deadline?: AbortSignal } = {}
  ): Promise<string> {
    const headers = {
      'content-type': contentType,
      ...(length !== undefined && { 'content-length': String(length) })
    }
    const response = await this.client.streamOnce(
      { method: 'PUT', path: [this.name, id, name], query: { rev }, body: data, headers, write: true },
      deadline
    )
    const written = revisionOf(await readJson(response), this.name)
    if (response.status === 202) await this.#confirmAccepted({ id, rev: written }, rev)
    return written
  }

  /**
   * Writes a document with its attachments in one request, streamed. One attempt.
   * @param document pieces of the JSON whose `_attachments` say `"follows":true`, in the order of `parts`
   * @returns the new revision; `null` with `newEdits: false`
   * @throws CouchError with status 409 on a conflict
   */
  async putWithAttachmentsOnce(
    id: string,
    document: readonly Buffer[],
    parts: readonly AttachmentPart[],
    { newEdits, sent, deadline }: StreamedWrite
  ): Promise<string | null> {
    // CouchDB waits for ever for the first part of a multipart body that has none.
    const { headers, open } =
      parts.length > 0 ? await inTurns(multipartRelated(document, parts)) : jsonBody(document)
    const request = {
      method: 'PUT' as const,
      path: [this.name, id],
      query: { new_edits: newEdits ? undefined : false },
      body: () => tellingSent(open(), sent),
      headers,
      write: true
    }
    const reply = await readJson(await this.client.streamOnce(request, deadline))
    return newEdits ? revisionOf(reply, this.name) : null
  }

  /** Writes one document whose JSON is a stream. The answer is that of {@link bulkDocs}. One attempt. */
  async putStreamOnce(
    json: () => AsyncIterable<Uint8Array>,
    { newEdits, sent, deadline }: StreamedWrite
  ): Promise<BulkResult[]> {
    const request = {
      method: 'POST' as const,
      path: [this.name, '_bulk_docs'],
      body: () => tellingSent(bulkStream(newEdits, json()), sent),
      headers: { 'content-type': 'application/json' },
      write: true
    }
    return bulkResults(await readJson(await this.client.streamOnce(request, deadline)), this.name)
  }
}

/** A deadline of what is waited for before a request's body is read, and again after it. */
class DeadlineAroundBody {
  readonly #ms: number
  readonly #deadline = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #ended = false

  constructor(ms: number) {
    this.#ms = ms
    this.#start()
  }

  get signal(): AbortSignal {
    return this.#deadline.signal
  }

  /** Passes the body on. The time that it takes does not count. */
  async *without(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    clearTimeout(this.#timer)
    yield* body
    this.#start()
  }

  end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }

  #start(): void {
    if (this.#ended) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#deadline.abort(), this.#ms)
  }
}

/** Bytes of an item of an array in a body, with some for commas and brackets. */
const jsonBytes = (item: unknown): number => Buffer.byteLength(JSON.stringify(item)) + 8

const isIllegalId = (error: unknown): boolean =>
  error instanceof CouchError && error.error === 'illegal_docid'

/** One id that a database cannot have makes it refuse the whole request. */
const isOfOneRevision = (error: unknown): boolean => isTooLarge(error) || isIllegalId(error)

async function* bulkStream(newEdits: boolean, json: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield Buffer.from(`{"new_edits":${newEdits},"docs":[`)
  yield* json
  yield Buffer.from(']}')
}

function bulkResults(answer: unknown, name: string): BulkResult[] {
  if (!Array.isArray(answer)) throw malformed(name, 'an array of results')
  return answer.map(({ error, reason, ...result }) => ({
    ...result,
    ...(error === undefined ? undefined : { error: asText(error), reason: asText(reason) })
  }))
}

/** A function of a design document refuses with any value. */
const asText = (value: unknown): string =>
  typeof value === 'string' ? value : (JSON.stringify(value ?? null) as string)

function jsonBody(document: readonly Buffer[]): MultipartBody {
  return {
    headers: { 'content-type': 'application/json', 'content-length': String(totalLength(document)) },
    async *open() {
      yield* inPieces(document)
    }
  }
}

/** Reads rows. What is read of a long one, which comes first, may be long as well. */
async function* readRows<T>(
  groups: AsyncIterable<Uint8Array[]>,
  read: (row: Uint8Array) => T
): AsyncGenerator<T[]> {
  for await (const rows of groups) {
    const all = rows.map(read)
    const pause = turnAfter(rows[0])
    if (pause) await pause
    yield all
  }
}

function readChange(row: Uint8Array): Change {
  const change: Change = { id: '', rev: '', seq: null, deleted: false, branched: false, doc: null }
  let seqCame = false
  const cursor = new MemberCursor(row)
  while (cursor.next()) {
    const { valueStart: start } = cursor
    switch (cursor.key()) {
      case 'id':
        change.id = cursor.string() ?? ''
        break
      case 'seq':
        seqCame = true
        if (row[start] !== 0x6e)
          change.seq = cursor.string() ?? String(decodeValue(row, start, cursor.valueEnd))
        break
      case 'deleted':
        change.deleted = row[start] === 0x74
        break
      case 'doc':
        if (row[start] !== 0x7b) break
        // CouchDB sends the document last: its end is found when it is read.
        if (seqCame && change.id && change.rev) return { ...change, doc: row.subarray(start) }
        change.doc = row.subarray(start, cursor.valueEnd)
        break
      case 'changes':
        for (const leaf of objectsOf(cursor)) {
          change.branched = change.rev !== ''
          while (leaf.next()) if (leaf.key() === 'rev') change.rev ||= leaf.string() ?? ''
        }
        break
    }
  }
  if (!change.id || !change.rev) throw malformed('_changes', 'id and revision of a row')
  return change
}

function readAllDocsRow(row: Uint8Array): Row {
  const revision: Row = { id: '', rev: '', doc: null }
  const cursor = new MemberCursor(row)
  while (cursor.next()) {
    const key = cursor.key()
    if (key === 'id') revision.id = cursor.string() ?? ''
    else if (key === 'doc') {
      if (row[cursor.valueStart] !== 0x7b) continue
      // CouchDB sends the document last: its end is found when it is read.
      if (revision.id && revision.rev) return { ...revision, doc: row.subarray(cursor.valueStart) }
      revision.doc = row.subarray(cursor.valueStart, cursor.valueEnd)
    } else if (key === 'value') {
      const value = new MemberCursor(row, cursor.valueStart)
      while (value.next()) if (value.key() === 'rev') revision.rev = value.string() ?? ''
    }
  }
  if (!revision.id || !revision.rev) throw malformed('_all_docs', 'id and revision of a row')
  return revision
}

function* bulkGetRow(row: Uint8Array): Steps<FoundDocument> {
  let id: string | undefined
  const leaves: Uint8Array[] = []
  const cursor = new MemberCursor(row)
  while (cursor.next()) {
    const key = cursor.key()
    if (key === 'id') id = cursor.string()
    else if (key === 'docs') {
      for (const answer of objectsOf(cursor)) {
        while (answer.next()) {
          while (!answer.reachEnd()) yield
          if (answer.key() === 'ok') leaves.push(row.subarray(answer.valueStart, answer.valueEnd))
          else if (answer.key() === 'error')
            rejectServerError(row.subarray(answer.valueStart, answer.valueEnd))
        }
      }
    }
  }
  if (id === undefined) throw malformed('_bulk_get', 'id of a result')
  return { id, ...(yield* winnerOf(leaves)) }
}

/**
 * `not_found` says that the revision is gone, `illegal_docid` that a partitioned database cannot have the document; every
 * other error in a `_bulk_get` is a fault.
 */
function rejectServerError(bytes: Uint8Array): void {
  const { error, reason } = decodeValue(bytes, 0, bytes.length) as { error?: string; reason?: string }
  if (error === 'not_found' || error === 'illegal_docid') return
  throw new CouchError('_bulk_get', {
    error: asText(error ?? 'unknown'),
    reason: asText(reason ?? 'CouchDB told nothing more'),
    retryable: error !== 'bad_request'
  })
}

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

/** A document's own members, to be compared. */
function membersOf(doc: object): string {
  return JSON.stringify({ ...doc, _id: undefined, _rev: undefined, _attachments: undefined })
}

/** Returns the revisions that led to a leaf that was read with `revs`, its own first. */
function historyOf({ doc }: Leaf): string[] {
  const { start = 0, ids = [] } = (doc._revisions ?? {}) as { start?: number; ids?: string[] }
  return ids.map((digest, at) => `${start - at}-${digest}`)
}

interface BulkGetAnswer {
  results?: { docs?: { ok?: { _rev?: unknown; _deleted?: unknown }; error?: { error?: string } }[] }[]
}

function leavesOf(answer: unknown, name: string): Leaf[] {
  const docs = (answer as BulkGetAnswer | null)?.results?.[0]?.docs
  if (!Array.isArray(docs)) throw malformed(name, 'results')
  return docs.flatMap(({ ok, error }) => {
    if (error) rejectServerError(Buffer.from(JSON.stringify(error)))
    if (typeof ok?._rev !== 'string') return []
    return [{ rev: ok._rev, deleted: ok._deleted === true, doc: ok as Record<string, unknown> }]
  })
}

function revisionOf(reply: unknown, name: string): string {
  const rev = (reply as { rev?: unknown } | null)?.rev
  if (typeof rev !== 'string') throw malformed(name, 'rev')
  return rev
}

function malformed(where: string, what: string): CouchError {
  return new CouchError(where, { error: 'bad_answer', reason: `the answer has no ${what}`, retryable: true })
}
