import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { gunzipSync, gzipSync } from 'node:zlib'
import { parseMultipart, partName } from '../../examples/standalone/multipart.js'

/** A stored attachment. Its content type and other members are kept as the raw JSON of its entry. */
interface RawAttachment {
  contentType: string
  revpos: number
  /** The bytes as the client sent them. */
  data: Buffer
  /** The client declared the bytes as compressed. */
  encoded?: boolean
}

export interface RawRevision {
  rev: string
  /** The document's own members as the client sent them, without braces and without members of CouchDB's. */
  body: Buffer
  deleted: boolean
  attachments: Map<string, RawAttachment>
  /** Hashes of this revision and its ancestors, newest first. */
  history: string[]
}

export interface RawDocument {
  id: string
  /** The `_id` as the client sent it, with its quotes. */
  rawId: Buffer
  seq: number
  /** Leaf revisions, the winner first. */
  leaves: RawRevision[]
}

export interface RawDatabase {
  /** `instance_start_time` in the reply to `GET /<database>`. */
  created: string
  /** Tells sequences of this database from those of an earlier one of the same name, which are answered from the start. */
  incarnation: string
  purges: number
  partitioned: boolean
  q: number
  seq: number
  docs: Map<string, RawDocument>
  local: Map<string, { rev: string; body: Buffer }>
  /** CouchDB's `max_attachment_size`, in bytes. */
  maxAttachmentSize?: number
  /** Number of replicas, and quorums of writes and reads. Default: one replica. */
  cluster?: { n: number; w: number; r: number }
  /** Suffix of sequences. Default `raw`. */
  label?: string
}

export interface RawCouch {
  url: string
  store: Map<string, RawDatabase>
  /** Returns the bytes of a document as every read sends them, with `_id` and `_rev` first. */
  document(database: string, id: string): Buffer | undefined
  close(): Promise<void>
}

/** The positions of a value in the bytes of a JSON text. */
interface Span {
  start: number
  end: number
}

interface Member extends Span {
  key: string
  keyStart: number
}

export class HttpError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    reason: string
  ) {
    super(reason)
  }
}

const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d])
const COMMA = Buffer.from(',')

/** Returns the end of the JSON value at `at`. Counts brackets outside strings, and checks nothing else. */
function valueEnd(json: Buffer, at: number): number {
  let depth = 0
  for (let i = at; i < json.length; i++) {
    const byte = json[i]
    if (byte === 0x22) {
      i = quoteAfter(json, i + 1)
      if (depth === 0) return i + 1
    } else if (byte === 0x7b || byte === 0x5b) depth++
    else if (byte === 0x7d || byte === 0x5d) {
      if (depth === 0) return i
      if (--depth === 0) return i + 1
    } else if (depth === 0 && (byte === 0x2c || SPACE.has(byte!))) return i
  }
  if (depth > 0) throw new HttpError(400, 'bad_request', 'invalid UTF-8 JSON')
  return json.length
}

/** Returns the position of the quote that ends a string whose content begins at `at`. Strings may take megabytes. */
function quoteAfter(json: Buffer, at: number): number {
  for (let quote = json.indexOf(0x22, at); quote !== -1; quote = json.indexOf(0x22, quote + 1)) {
    let first = quote
    while (first > at && json[first - 1] === 0x5c) first--
    if ((quote - first) % 2 === 0) return quote
  }
  return json.length
}

function skip(json: Buffer, at: number): number {
  let i = at
  while (SPACE.has(json[i]!) || json[i] === 0x2c || json[i] === 0x3a) i++
  return i
}

function open(json: Buffer, at: number, bracket: number): number {
  const start = skip(json, at)
  if (json[start] !== bracket) throw new HttpError(400, 'bad_request', 'invalid UTF-8 JSON')
  return skip(json, start + 1)
}

/** Returns the positions of the elements of a JSON array at `at`. */
export function elements(json: Buffer, at = 0): Span[] {
  const spans: Span[] = []
  for (let i = open(json, at, 0x5b); json[i] !== 0x5d; ) {
    const end = valueEnd(json, i)
    if (end === i) throw new HttpError(400, 'bad_request', 'invalid UTF-8 JSON')
    spans.push({ start: i, end })
    i = skip(json, end)
  }
  return spans
}

/** Returns the positions of the members of a JSON object at `at`. */
export function members(json: Buffer, at = 0): Member[] {
  const found: Member[] = []
  for (let i = open(json, at, 0x7b); json[i] !== 0x7d; ) {
    const keyEnd = valueEnd(json, i)
    const start = skip(json, keyEnd)
    const end = valueEnd(json, start)
    if (end === start || json[i] !== 0x22) throw new HttpError(400, 'bad_request', 'invalid UTF-8 JSON')
    found.push({ key: JSON.parse(json.toString('utf8', i, keyEnd)), keyStart: i, start, end })
    i = skip(json, end)
  }
  return found
}

/** Content types that CouchDB compresses. */
const COMPRESSIBLE = /^(text\/|application\/(javascript|json|xml)\b)/

/** Returns an attachment as CouchDB stores it. Digests are computed from this form. */
const storedForm = ({ contentType, data, encoded }: RawAttachment) =>
  COMPRESSIBLE.test(contentType) && !encoded ? gzipSync(data) : data

const isStoredGzip = ({ contentType, encoded }: RawAttachment) =>
  encoded === true || COMPRESSIBLE.test(contentType)

function identityOf({ data, encoded }: RawAttachment): Buffer {
  if (!encoded) return data
  try {
    return gunzipSync(data)
  } catch {
    throw new HttpError(500, 'unknown_error', 'data_error')
  }
}

const digestOf = (data: Buffer) => createHash('md5').update(data).digest('base64')

const parse = (json: Buffer, { start, end }: Span) => JSON.parse(json.toString('utf8', start, end))
const generation = (rev: string) => Number.parseInt(rev, 10)
const md5 = (...parts: (Buffer | string)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash('md5')).digest('hex')

/**
 * Adds a leaf, and returns all leaves with the winner first. A known revision, or an ancestor of one, changes nothing.
 * A revision that extends a leaf replaces it.
 */
export function withLeaf(leaves: RawRevision[], leaf: RawRevision): RawRevision[] {
  if (leaves.some(({ history }) => history.includes(leaf.history[0]!))) return leaves
  const others = leaves.filter(({ history }) => !leaf.history.includes(history[0]!))
  return [...others, leaf].sort(byWinner)
}

/**
 * Compares as CouchDB does: a live revision wins over a deleted one, then the longer history, then the greater hash.
 */
export function byWinner(a: RawRevision, b: RawRevision): number {
  if (a.deleted !== b.deleted) return a.deleted ? 1 : -1
  return generation(b.rev) - generation(a.rev) || (a.rev < b.rev ? 1 : -1)
}

interface Incoming {
  id: string | undefined
  rawId: Buffer
  rev: string | undefined
  revisions: { start: number; ids: string[] } | undefined
  deleted: boolean
  body: Buffer
  /** The parsed entries of `_attachments`, by name. */
  entries: Record<
    string,
    {
      content_type?: string
      data?: string
      follows?: boolean
      length?: number
      revpos?: number
      encoded?: boolean
    }
  >
}

function readDocument(json: Buffer): Incoming {
  const document: Incoming = {
    id: undefined,
    rawId: Buffer.alloc(0),
    rev: undefined,
    revisions: undefined,
    deleted: false,
    body: Buffer.alloc(0),
    entries: {}
  }
  const kept: Buffer[] = []
  for (const member of members(json)) {
    if (member.key === '_id') {
      document.id = parse(json, member)
      document.rawId = Buffer.from(json.subarray(member.start, member.end))
    } else if (member.key === '_rev') document.rev = parse(json, member)
    else if (member.key === '_revisions') document.revisions = parse(json, member)
    else if (member.key === '_deleted') document.deleted = parse(json, member)
    else if (member.key === '_attachments') document.entries = parse(json, member)
    else if (member.key.startsWith('_')) {
      throw new HttpError(400, 'doc_validation', `Bad special document member: ${member.key}`)
    } else kept.push(COMMA, json.subarray(member.keyStart, member.end))
  }
  document.body = Buffer.concat(kept.slice(1))
  return document
}

function checkId(id: unknown): asserts id is string {
  if (typeof id !== 'string') throw new HttpError(400, 'illegal_docid', 'Document id must be a string')
  if (id === '') throw new HttpError(400, 'illegal_docid', 'Document id must not be empty')
  if (id.startsWith('_') && !id.startsWith('_design/')) {
    throw new HttpError(400, 'illegal_docid', 'Only reserved document ids may start with underscore.')
  }
}

function checkPartition({ partitioned }: RawDatabase, id: string): void {
  if (partitioned && !id.startsWith('_') && !/^[^:]+:./.test(id)) {
    throw new HttpError(400, 'illegal_docid', 'Doc id must be of form partition:id')
  }
}

function checkDesign({ partitioned }: RawDatabase, { id, body }: Incoming): void {
  if (partitioned || !id?.startsWith('_design/') || !/"options":\{"partitioned":true/.test(body.toString()))
    return
  const reason = 'partitioned option cannot be true in a non-partitioned database.'
  throw new HttpError(400, 'invalid_design_doc', reason)
}

/**
 * Writes one document, and returns its revision.
 * @param follow bytes of the attachments that follow the document in its request, by name
 */
function write(
  database: RawDatabase,
  doc: Incoming,
  newEdits: boolean,
  follow = new Map<string, Buffer>()
): string {
  checkId(doc.id)
  checkPartition(database, doc.id)
  checkDesign(database, doc)
  const { id } = doc
  const existing = database.docs.get(id)
  const winner = existing?.leaves[0]
  const parent = newEdits
    ? existing?.leaves.find((leaf) => (doc.rev ? leaf.rev === doc.rev : leaf === winner && leaf.deleted))
    : existing?.leaves.find((leaf) => doc.revisions?.ids.includes(leaf.history[0]!))
  if (newEdits && !parent && (existing || doc.rev)) {
    throw new HttpError(409, 'conflict', 'Document update conflict.')
  }

  const attachments = new Map<string, RawAttachment>()
  const height = newEdits ? (parent ? generation(parent.rev) : 0) + 1 : generation(doc.rev ?? '')
  for (const [name, entry] of Object.entries(doc.entries)) {
    const old = parent?.attachments.get(name)
    const data = entry.data === undefined ? follow.get(name) : Buffer.from(entry.data, 'base64')
    if (data) {
      if (data.length > (database.maxAttachmentSize ?? Number.POSITIVE_INFINITY))
        throw new HttpError(413, 'attachment_too_large', name)
      const contentType = entry.content_type ?? 'application/octet-stream'
      const revpos = newEdits ? height : (entry.revpos ?? height)
      attachments.set(name, { contentType, revpos, data, encoded: entry.encoded })
    } else if (old) attachments.set(name, old)
    else throw new HttpError(412, 'missing_stub', `Invalid attachment stub in ${id} for ${name}`)
  }

  let history: string[]
  if (newEdits) {
    const digests = [...attachments].map(([name, { data }]) => name + md5(data))
    const hash = md5(String(doc.deleted), parent?.rev ?? '', doc.body, ...digests)
    history = [hash, ...(parent?.history ?? [])]
  } else {
    const own = /^\d+-(.+)$/.exec(doc.rev ?? '')?.[1]
    if (!own) throw new HttpError(400, 'bad_request', 'Invalid rev format')
    history = doc.revisions?.ids ?? [own]
  }
  const rev = `${height}-${history[0]}`
  const revision: RawRevision = { rev, body: doc.body, deleted: doc.deleted, attachments, history }
  // a known revision, or an ancestor of one, changes nothing
  if (!newEdits && existing?.leaves.some((leaf) => leaf.history.includes(history[0]!))) return rev
  const leaves = (existing?.leaves ?? []).filter((leaf) => leaf !== parent)
  database.docs.set(id, {
    id,
    rawId: doc.rawId.length > 0 ? doc.rawId : Buffer.from(JSON.stringify(id)),
    seq: ++database.seq,
    leaves: [...leaves, revision].sort(byWinner)
  })
  return rev
}

function render(
  document: RawDocument,
  leaf: RawRevision,
  { attachments = false, revs = false, conflicts = false, encodings = false } = {}
): Buffer {
  const parts: (Buffer | string)[] = ['{"_id":', document.rawId, `,"_rev":${JSON.stringify(leaf.rev)}`]
  if (leaf.deleted) parts.push(',"_deleted":true')
  if (leaf.body.length > 0) parts.push(COMMA, leaf.body)
  if (revs) {
    parts.push(`,"_revisions":${JSON.stringify({ start: generation(leaf.rev), ids: leaf.history })}`)
  }
  const others = document.leaves.filter((other) => other !== leaf && !other.deleted).map(({ rev }) => rev)
  if (conflicts && others.length > 0) parts.push(`,"_conflicts":${JSON.stringify(others)}`)
  if (leaf.attachments.size > 0) {
    const entries = [...leaf.attachments].map(([name, attachment]) => {
      const { contentType, revpos, data } = attachment
      const stored = storedForm(attachment)
      const common = { content_type: contentType, revpos, digest: `md5-${digestOf(stored)}` }
      const rest = attachments
        ? { data: identityOf(attachment).toString('base64') }
        : { length: data.length, stub: true }
      const encoding =
        encodings && isStoredGzip(attachment) ? { encoding: 'gzip', encoded_length: stored.length } : {}
      return `${JSON.stringify(name)}:${JSON.stringify({ ...common, ...rest, ...encoding })}`
    })
    parts.push(`,"_attachments":{${entries.join(',')}}`)
  }
  parts.push('}')
  return Buffer.concat(parts.map((part) => Buffer.from(part as string)))
}

/** A JSON text that is put together from raw values, without parsing them. */
class Raw {
  readonly parts: Buffer[] = []
  add(...parts: (Buffer | string)[]): this {
    for (const part of parts) this.parts.push(Buffer.from(part as string))
    return this
  }
}

const byId = (a: RawDocument, b: RawDocument) => Buffer.compare(Buffer.from(a.id), Buffer.from(b.id))

export interface Call {
  method: string
  path: string[]
  query: URLSearchParams
  body: Buffer
  request: IncomingMessage
}

export type Reply = { status: number; json: unknown; headers?: Record<string, string> }

const ok = (json: unknown, status = 200): Reply => ({ status, json })
const notFound = (reason = 'missing') => new HttpError(404, 'not_found', reason)
const flag = (query: URLSearchParams, name: string) => query.get(name) === 'true'

export interface Creation {
  /** Returns the `instance_start_time` of a database that is created now. Default: another one for each database. */
  created?: () => string
}

let creations = 0

const numberOfCreation = () => String(creations)

/** Returns the time in seconds, as CouchDB does: databases that are created within a second have the same. */
export const secondOfCreation = (): string => String(Math.floor(Date.now() / 1000))

/**
 * Starts a small CouchDB in memory that keeps the bytes of documents as the client sent them. They pass through no JSON
 * parser between a write and a read, so that any changed byte was changed by a client and not by the database.
 */
export async function startRawCouch({ created = numberOfCreation }: Creation = {}): Promise<RawCouch> {
  const store = new Map<string, RawDatabase>()
  const server = createServer((request, response) => {
    serve(request, response, (call) => route(store, call, created))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    store,
    document(database, id) {
      const document = store.get(database)?.docs.get(id)
      const leaf = document?.leaves[0]
      return document && leaf && !leaf.deleted ? render(document, leaf) : undefined
    },
    async close() {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    }
  }
}

/** Answers a request with what `route` returns or throws. Sends nothing when `route` returns `null`. */
export async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  route: (call: Call) => Reply | null | Promise<Reply | null>
): Promise<void> {
  if ((request.url ?? '').length > MAX_TARGET) {
    response.writeHead(400).end()
    return
  }
  try {
    const reply = await route(await readCall(request))
    if (reply) send(response, request, reply)
  } catch (error) {
    send(response, request, refusal(error as Error))
  }
}

function refusal(error: Error): Reply {
  const known = error instanceof HttpError
  const status = known ? error.status : error instanceof SyntaxError ? 400 : 500
  return ok({ error: known ? error.code : 'bad_request', reason: error.message }, status)
}

/** Longest target that CouchDB accepts. It does not tell why it refuses longer ones. */
const MAX_TARGET = 8000

async function readCall(request: IncomingMessage): Promise<Call> {
  const url = new URL(request.url ?? '/', 'http://localhost')
  return {
    method: request.method === 'HEAD' ? 'GET' : (request.method ?? 'GET'),
    path: url.pathname.split('/').slice(1).map(decodeURIComponent),
    query: url.searchParams,
    body: await buffer(request),
    request
  }
}

function send(response: ServerResponse, request: IncomingMessage, { status, json, headers }: Reply): void {
  if (response.headersSent) return
  const body =
    json instanceof Buffer
      ? json
      : json instanceof Raw
        ? Buffer.concat(json.parts)
        : Buffer.from(`${JSON.stringify(json)}\n`)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': body.length,
    ...headers
  })
  response.end(request.method === 'HEAD' ? undefined : body)
}

/**
 * Answers a call from the databases of `store`.
 * @throws HttpError where CouchDB refuses
 */
export function route(
  store: Map<string, RawDatabase>,
  call: Call,
  createdNow: () => string = numberOfCreation
): Reply {
  const { method, path, query, body } = call
  const [name = '', first, ...rest] = path
  if (name === '') return ok({ couchdb: 'Welcome', version: '3.4.3' })
  if (name === '_all_dbs') return ok([...store.keys()].sort())
  if (name === '_up') return ok({ status: 'ok' })
  if (!first && method === 'PUT') {
    if (store.has(name)) throw new HttpError(412, 'file_exists', 'The database could not be created.')
    const incarnation = String(++creations)
    const created = createdNow()
    const partitioned = flag(query, 'partitioned')
    const q = Number(query.get('q') ?? 2)
    if (!Number.isInteger(q) || q < 1) {
      throw new HttpError(400, 'bad_request', 'The `q` value should be a positive integer.')
    }
    const counts = { purges: 0, seq: 0 }
    const empty = { docs: new Map(), local: new Map() }
    store.set(name, { created, incarnation, partitioned, q, ...counts, ...empty })
    return ok({ ok: true }, 201)
  }
  const database = store.get(name)
  if (!database) throw notFound('Database does not exist.')
  if (!first) {
    if (method === 'DELETE') return ok({ ok: store.delete(name) })
    if (method === 'POST') return putDocument(database, call, readDocument(body).id ?? md5(body))
    const live = [...database.docs.values()].filter(({ leaves }) => !leaves[0]?.deleted).length
    const deleted = database.docs.size - live
    return ok({
      db_name: name,
      instance_start_time: database.created,
      purge_seq: `${database.purges}-${database.label ?? 'raw'}`,
      update_seq: sequence(database, database.seq),
      props: database.partitioned ? { partitioned: true } : {},
      cluster: { q: database.q, n: 1, w: 1, r: 1, ...database.cluster },
      doc_count: live,
      doc_del_count: deleted
    })
  }
  if (first === '_local' && rest[0]) return local(database, call, `_local/${rest.join('/')}`)
  if (first === '_design' && rest[0]) return documentOf(database, call, `_design/${rest[0]}`, rest.slice(1))
  switch (`${method} ${first}`) {
    case 'GET _changes':
    case 'POST _changes':
      return changes(database, call)
    case 'GET _all_docs':
    case 'POST _all_docs':
      return allDocs(database, call)
    case 'POST _bulk_docs':
      return bulkDocs(database, body)
    case 'POST _bulk_get':
      return bulkGet(database, call)
    case 'POST _purge':
      return purge(database, body)
    case 'POST _revs_diff':
      return revsDiff(database, body)
  }
  return documentOf(database, call, first, rest)
}

const sequence = ({ label = 'raw', incarnation }: RawDatabase, seq: number) =>
  `${seq}-${label}${incarnation && `.${incarnation}`}`

/** Returns the place of a sequence in the feed: its start for one of an earlier database of the same name. */
function placeOf(database: RawDatabase, since: string): number {
  if (since === 'now') return database.seq
  const incarnation = /\.(\d+)$/.exec(since)?.[1] ?? database.incarnation
  return incarnation === database.incarnation ? Number.parseInt(since, 10) : 0
}

function changes(database: RawDatabase, { query }: Call): Reply {
  const since = placeOf(database, query.get('since') ?? '0')
  const limit = Number(query.get('limit') ?? Number.POSITIVE_INFINITY)
  const interval = Number(query.get('seq_interval') ?? 1)
  const all = [...database.docs.values()].filter(({ seq }) => seq > since).sort((a, b) => a.seq - b.seq)
  const page = all.slice(0, limit)
  const raw = new Raw().add('{"results":[\n')
  for (const [index, document] of page.entries()) {
    const leaf = document.leaves[0]!
    const told = query.get('style') === 'all_docs' ? document.leaves : [leaf]
    const shown = (index + 1) % interval === 0 || index === page.length - 1
    raw.add(
      index > 0 ? ',\n' : '',
      `{"seq":${shown ? JSON.stringify(sequence(database, document.seq)) : 'null'},"id":`,
      document.rawId,
      `,"changes":${JSON.stringify(told.map(({ rev }) => ({ rev })))}`,
      leaf.deleted ? ',"deleted":true' : ''
    )
    if (flag(query, 'include_docs')) {
      const attachments = flag(query, 'attachments')
      const encodings = flag(query, 'att_encoding_info')
      raw.add(
        ',"doc":',
        render(document, leaf, { attachments, encodings, conflicts: flag(query, 'conflicts') })
      )
    }
    raw.add('}')
  }
  const last = page.at(-1)?.seq ?? since
  return ok(
    raw.add(
      `\n],\n"last_seq":${JSON.stringify(sequence(database, last))},"pending":${all.length - page.length}}\n`
    )
  )
}

function allDocs(database: RawDatabase, { query, body }: Call): Reply {
  const json = (...names: string[]) => {
    const value = names.map((name) => query.get(name)).find((text) => text !== null)
    return value === undefined || value === null
      ? names.map((name) => sent[name]).find(Boolean)
      : JSON.parse(value)
  }
  const sent: Record<string, string> = body.length > 0 ? JSON.parse(body.toString()) : {}
  const live = [...database.docs.values()].filter(({ leaves }) => !leaves[0]?.deleted).sort(byId)
  const keys: string[] | undefined = json('keys')
  const raw = new Raw()
  const row = (document: RawDocument, key: Buffer) => {
    const leaf = document.leaves[0]!
    const deleted = leaf.deleted ? ',"deleted":true' : ''
    raw.add('{"id":', document.rawId, ',"key":', key)
    raw.add(`,"value":{"rev":${JSON.stringify(leaf.rev)}${deleted}}`)
    if (flag(query, 'include_docs')) {
      const doc = render(document, leaf, { attachments: flag(query, 'attachments') })
      raw.add(',"doc":', leaf.deleted ? 'null' : doc)
    }
    raw.add('}')
  }
  if (keys) {
    raw.add(`{"total_rows":${live.length},"offset":null,"rows":[\n`)
    for (const [index, key] of keys.entries()) {
      if (index > 0) raw.add(',\n')
      const document = database.docs.get(key)
      if (document) row(document, document.rawId)
      else raw.add(JSON.stringify({ key, error: 'not_found' }))
    }
    return ok(raw.add('\n]}\n'))
  }
  const start: string | undefined = json('startkey', 'start_key', 'key')
  const end: string | undefined = json('endkey', 'end_key', 'key')
  const at = (id: string) => Buffer.from(id)
  const inclusive = query.get('inclusive_end') !== 'false'
  const rows = live.filter(({ id }) => {
    if (start !== undefined && Buffer.compare(at(id), at(start)) < 0) return false
    return end === undefined || Buffer.compare(at(id), at(end)) < (inclusive ? 1 : 0)
  })
  if (flag(query, 'descending')) rows.reverse()
  const skipped = Number(query.get('skip') ?? 0)
  const page = rows.slice(skipped, skipped + Number(query.get('limit') ?? sent.limit ?? rows.length))
  raw.add(`{"total_rows":${live.length},"offset":${skipped},"rows":[\n`)
  for (const [index, document] of page.entries()) {
    if (index > 0) raw.add(',\n')
    row(document, document.rawId)
  }
  return ok(raw.add('\n]}\n'))
}

function bulkDocs(database: RawDatabase, body: Buffer): Reply {
  const request = members(body)
  const docs = request.find(({ key }) => key === 'docs')
  if (!docs) throw new HttpError(400, 'bad_request', 'POST body must include `docs` parameter.')
  const edits = request.find(({ key }) => key === 'new_edits')
  const newEdits = edits ? parse(body, edits) !== false : true
  // read all documents before writing the first, since a malformed one fails the whole call
  const read = elements(body, docs.start).map(({ start, end }) => readDocument(body.subarray(start, end)))
  for (const { id } of read) {
    if (id === undefined) continue
    checkId(id)
    checkPartition(database, id)
  }
  const results: object[] = []
  for (const doc of read) {
    doc.id ??= md5(doc.body, String(results.length))
    try {
      const rev = write(database, { ...doc, body: Buffer.from(doc.body) }, newEdits)
      if (newEdits) results.push({ ok: true, id: doc.id, rev })
    } catch (error) {
      if (!(error instanceof HttpError) || error.status === 412) throw error
      results.push({ id: doc.id, error: error.code, reason: error.message })
    }
  }
  return ok(results, 201)
}

function bulkGet(database: RawDatabase, { query, body }: Call): Reply {
  const raw = new Raw().add('{"results":[')
  const options = {
    attachments: flag(query, 'attachments'),
    revs: flag(query, 'revs'),
    encodings: flag(query, 'att_encoding_info')
  }
  for (const [index, asked] of JSON.parse(body.toString()).docs.entries()) {
    const document = database.docs.get(asked.id)
    const leaves = document?.leaves.filter(({ rev }) => rev === (asked.rev ?? rev)) ?? []
    raw.add(index > 0 ? ',' : '', `{"id":${JSON.stringify(asked.id)},"docs":[`)
    for (const [at, leaf] of leaves.entries()) {
      raw.add(at > 0 ? ',' : '', '{"ok":', render(document!, leaf, options), '}')
    }
    if (leaves.length === 0) {
      const error = { id: asked.id, rev: asked.rev ?? 'undefined', error: 'not_found', reason: 'missing' }
      raw.add(JSON.stringify({ error }))
    }
    raw.add(']}')
  }
  return ok(raw.add(']}'))
}

/** Purges leaves. Counts every id, as CouchDB does. A document that has leaves left gets another place in the feed. */
function purge(database: RawDatabase, body: Buffer): Reply {
  const asked: Record<string, string[]> = JSON.parse(body.toString())
  const purged: Record<string, string[]> = {}
  for (const [id, revs] of Object.entries(asked)) {
    database.purges++
    const document = database.docs.get(id)
    const gone = document?.leaves.filter(({ rev }) => revs.includes(rev)) ?? []
    purged[id] = gone.map(({ rev }) => rev)
    if (!document || gone.length === 0) continue
    const leaves = document.leaves.filter((leaf) => !gone.includes(leaf))
    const seq = ++database.seq
    if (leaves.length > 0) database.docs.set(id, { ...document, seq, leaves })
    else database.docs.delete(id)
  }
  return ok({ purge_seq: null, purged }, 201)
}

function revsDiff(database: RawDatabase, body: Buffer): Reply {
  const missing: Record<string, { missing: string[] }> = {}
  for (const [id, revs] of Object.entries<string[]>(JSON.parse(body.toString()))) {
    checkPartition(database, id)
    const known = (rev: string) =>
      database.docs.get(id)?.leaves.some(({ rev: leaf, history }) => {
        const hash = history[generation(leaf) - generation(rev)]
        return hash !== undefined && rev === `${generation(rev)}-${hash}`
      })
    const unknown = revs.filter((rev) => !known(rev))
    if (unknown.length > 0) missing[id] = { missing: unknown }
  }
  return ok(missing)
}

function local(database: RawDatabase, { method, query, body }: Call, id: string): Reply {
  const current = database.local.get(id)
  if (method === 'GET') {
    if (!current) throw notFound()
    const raw = new Raw().add(`{"_id":${JSON.stringify(id)},"_rev":${JSON.stringify(current.rev)}`)
    return ok(raw.add(current.body.length > 0 ? COMMA : '', current.body, '}'))
  }
  const doc = method === 'PUT' ? readDocument(body) : undefined
  const rev = query.get('rev') ?? doc?.rev
  if (method === 'DELETE' && !current) throw notFound()
  if (rev !== current?.rev && !(rev === '0-0' && !current)) {
    throw new HttpError(409, 'conflict', 'Document update conflict.')
  }
  if (!doc) {
    database.local.delete(id)
    return ok({ ok: true, id, rev: '0-0' })
  }
  const next = `0-${generation(current?.rev.slice(2) ?? '0') + 1}`
  database.local.set(id, { rev: next, body: Buffer.from(doc.body) })
  return ok({ ok: true, id, rev: next }, 201)
}

function documentOf(database: RawDatabase, call: Call, id: string, rest: string[]): Reply {
  const { method, query } = call
  if (rest.length > 0) return attachment(database, call, id, rest.join('/'))
  if (method === 'PUT') return putDocument(database, call, id)
  if (method === 'GET' && query.get('open_revs') === 'all') return openRevs(database, call, id)
  const { document, leaf } = find(database, id, query.get('rev'))
  if (method === 'DELETE') {
    if (query.get('rev') === null) throw new HttpError(409, 'conflict', 'Document update conflict.')
    const doc = {
      ...readDocument(Buffer.from('{"_deleted":true}')),
      id,
      rawId: document.rawId,
      rev: leaf.rev
    }
    return ok({ ok: true, id, rev: write(database, doc, true) })
  }
  const json = render(document, leaf, {
    attachments: flag(query, 'attachments'),
    revs: flag(query, 'revs'),
    conflicts: flag(query, 'conflicts'),
    encodings: flag(query, 'att_encoding_info')
  })
  return { status: 200, json, headers: { etag: JSON.stringify(leaf.rev) } }
}

/**
 * Sends all leaves in an order that does not show the winner. Refuses clients that do not ask for JSON, to whom CouchDB
 * sends `multipart/mixed`.
 */
function openRevs(database: RawDatabase, { query, request }: Call, id: string): Reply {
  const document = database.docs.get(id)
  if (!document) throw notFound()
  if (!/application\/json/.test(request.headers.accept ?? '')) {
    throw new HttpError(406, 'not_acceptable', 'only JSON here')
  }
  const options = { attachments: flag(query, 'attachments'), revs: flag(query, 'revs') }
  const leaves = [...document.leaves].sort((a, b) => (a.rev < b.rev ? -1 : 1))
  const raw = new Raw().add('[')
  for (const [at, leaf] of leaves.entries()) {
    raw.add(at > 0 ? ',' : '', '{"ok":', render(document, leaf, options), '}')
  }
  return ok(raw.add(']'))
}

function find(database: RawDatabase, id: string, rev: string | null) {
  const document = database.docs.get(id)
  if (!document) throw notFound()
  const leaf = rev ? document.leaves.find((one) => one.rev === rev) : document.leaves[0]
  if (!leaf) throw notFound()
  if (leaf.deleted && !rev) throw notFound('deleted')
  return { document, leaf }
}

function putDocument(database: RawDatabase, { query, body, request }: Call, id: string): Reply {
  const follow = new Map<string, Buffer>()
  const type = request.headers['content-type'] ?? ''
  let json = body
  if (type.startsWith('multipart/related')) {
    const parts = parseMultipart(type, body)
    json = parts.shift()?.body ?? Buffer.alloc(0)
    const { entries } = readDocument(json)
    const following = Object.keys(entries).filter((name) => entries[name]?.follows)
    for (const part of parts) {
      const name = partName(part, following) ?? ''
      if (entries[name]?.length !== part.body.length)
        throw new HttpError(400, 'bad_request', `length of ${name}`)
      follow.set(name, Buffer.from(part.body))
    }
  }
  const doc = readDocument(json)
  doc.body = Buffer.from(doc.body)
  if (doc.id !== undefined && doc.id !== id) {
    throw new HttpError(400, 'bad_request', 'Document ID must match id in URL')
  }
  const newEdits = query.get('new_edits') !== 'false'
  const rev = write(database, { ...doc, id, rev: query.get('rev') ?? doc.rev }, newEdits, follow)
  return ok({ ok: true, id, rev }, 201)
}

function attachment(database: RawDatabase, call: Call, id: string, name: string): Reply {
  const { method, query, body, request } = call
  if (method === 'GET') {
    const found = find(database, id, query.get('rev')).leaf.attachments.get(name)
    if (!found) throw notFound('Document is missing attachment')
    const gzip = isStoredGzip(found) && /\bgzip\b/.test(String(request.headers['accept-encoding']))
    return {
      status: 200,
      json: gzip ? storedForm(found) : identityOf(found),
      headers: {
        'content-type': found.contentType,
        etag: `"${digestOf(storedForm(found))}"`,
        ...(gzip && { 'content-encoding': 'gzip' })
      }
    }
  }
  if (method !== 'PUT') throw new HttpError(405, 'method_not_allowed', 'Only GET,HEAD,PUT allowed')
  const document = database.docs.get(id)
  const rev = query.get('rev') ?? undefined
  const leaf = document?.leaves.find((one) => one.rev === rev)
  const doc = { ...readDocument(Buffer.from('{}')), id, rev }
  if (document && leaf) Object.assign(doc, { rawId: document.rawId, body: leaf.body })
  for (const other of leaf?.attachments.keys() ?? []) doc.entries[other] = {}
  const encoded = request.headers['content-encoding'] === 'gzip'
  doc.entries[name] = { content_type: request.headers['content-type'], follows: true, encoded }
  return ok({ ok: true, id, rev: write(database, doc, true, new Map([[name, body]])) }, 201)
}
