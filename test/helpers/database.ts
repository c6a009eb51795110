import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import { startEmbeddedCouch } from '../../examples/standalone/embedded-couch.js'
import type { LogicalDatabase } from '../../types/index.js'
import { poll } from './poll.js'

export interface FetchedDocument {
  _id: string
  _rev?: string
  type?: unknown
  _attachments?: Record<string, { content_type: string; data: string }>
  [key: string]: unknown
}

export type Snapshot = Map<string, FetchedDocument>

export interface TestDatabases {
  couch: ServerScope
  /** URL of the server, with credentials if it has any. */
  url: string
  names: Record<LogicalDatabase, string>
  /** `true` on `COUCHDB_URL`, for tests of what only a real CouchDB does. */
  real: boolean
  /** Reads all documents, with attachments inline. They pass `JSON.parse`, so this proves nothing about bytes. */
  fetchAll(database: string): Promise<Snapshot>
}

/** The source databases. */
export const DATABASES = ['components', 'sessions', 'system'] as const

/** Id and type of the document of a lease. */
export const LEASE = 'athena_backup_lease'

const OWN_TYPES: readonly unknown[] = [
  'athena_backup',
  'athena_backup_removed',
  'athena_backup_chunk',
  'athena_backup_manifest',
  LEASE,
  'athena_backup_notice',
  'webhook_tx'
]

/** Tells whether a document is the plugin's own. */
export const isOwn = ({ type }: { type?: unknown }): boolean => OWN_TYPES.includes(type)

/** Returns the revision in the answer to a write: the embedded server says that its JSON is text. */
export const revisionIn = (written: { rev: string } | string): string =>
  (typeof written === 'string' ? (JSON.parse(written) as { rev: string }) : written).rev

/**
 * Creates three empty databases, on an embedded server of their own or on `COUCHDB_URL`. They are deleted when the test
 * ends.
 */
export async function setupDatabases(
  t: Test,
  options: { names?: Partial<Record<LogicalDatabase, string>> } = {}
): Promise<TestDatabases> {
  const embedded = process.env.COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const url = embedded?.url ?? process.env.COUCHDB_URL ?? ''
  const couch = nano(url)
  const prefix = `t${randomBytes(6).toString('hex')}_`
  const entries = DATABASES.map((logical) => [logical, options.names?.[logical] ?? prefix + logical])
  const names = Object.fromEntries(entries) as Record<LogicalDatabase, string>
  t.teardown(async () => {
    for (const name of embedded ? [] : Object.values(names)) await deleteDatabase(couch, name)
    await embedded?.close()
  })
  for (const name of Object.values(names)) await couch.db.create(name)
  return { couch, url, names, real: !embedded, fetchAll: (database) => fetchAll(couch, database) }
}

/** Reads all documents of a database, page by page, with attachments inline. */
export async function fetchAll(couch: ServerScope, database: string): Promise<Snapshot> {
  const page = 200
  const snapshot: Snapshot = new Map()
  for (let startkey: string | undefined; ; ) {
    const { rows } = await couch.use(database).list({
      include_docs: true,
      attachments: true,
      limit: page,
      ...(startkey === undefined ? {} : { startkey, skip: 1 })
    } as object)
    for (const { id, doc } of rows) snapshot.set(id, doc as unknown as FetchedDocument)
    if (rows.length < page) return snapshot
    startkey = rows.at(-1)?.id
  }
}

interface CompareOptions {
  /** Compares revisions as well. Default `false`. */
  rev?: boolean
}

/** Fails when a document is missing, new or different. The plugin's own documents do not count. */
export function compareDatabases(
  t: Test,
  before: Snapshot,
  after: Snapshot,
  options: CompareOptions = {}
): void {
  const [expected, found] = [comparable(before, options), comparable(after, options)]
  t.strictSame([...found.keys()].sort(), [...expected.keys()].sort(), 'the same documents')
  for (const [id, document] of expected) {
    if (found.has(id)) t.strictSame(found.get(id), document, `${id} is the same`)
  }
}

function comparable(snapshot: Snapshot, { rev = false }: CompareOptions): Map<string, object> {
  const documents = new Map<string, object>()
  for (const [id, document] of snapshot) {
    if (isOwn(document)) continue
    const { _attachments = {}, _rev, ...body } = document
    const attachments = Object.entries(_attachments).map(([name, { content_type, data }]) => ({
      name,
      content_type,
      data: Buffer.from(data, 'base64').toString('base64')
    }))
    attachments.sort((a, b) => (a.name < b.name ? -1 : 1))
    documents.set(id, { body, attachments, ...(rev ? { _rev } : {}) })
  }
  return documents
}

/** Deletes a database, unless a test has done so already. */
export async function deleteDatabase(couch: ServerScope, name: string): Promise<void> {
  await isNotRefused(404, couch.db.destroy(name))
}

/** Deletes a database and creates it anew. Tries again while a busy CouchDB still finds the deleted one. */
export async function recreate(couch: ServerScope, name: string): Promise<void> {
  await poll(`an empty ${name}`, async () => {
    await deleteDatabase(couch, name)
    return (await isNotRefused(412, couch.db.create(name))) ? true : undefined
  })
}

/** Tells whether a call succeeds rather than being refused with this status. */
async function isNotRefused(status: number, call: Promise<unknown>): Promise<boolean> {
  return call.then(
    () => true,
    (error: { statusCode?: number }) => {
      if (error.statusCode !== status) throw error
      return false
    }
  )
}

/**
 * Writes an attachment at its own URL, with headers that nano cannot set, such as `Content-Encoding`.
 * @returns the document's new revision
 */
export async function putAttachment(
  url: string,
  path: readonly string[],
  data: Buffer,
  headers: Record<string, string>,
  rev?: string
): Promise<string> {
  const { origin, username, password } = new URL(url)
  const target = `${origin}/${path.map(encodeURIComponent).join('/')}${rev ? `?rev=${encodeURIComponent(rev)}` : ''}`
  return new Promise((resolve, reject) => {
    const sent = request(
      target,
      {
        method: 'PUT',
        headers: { ...headers, 'content-length': data.length },
        ...(username && { auth: `${username}:${password}` })
      },
      (response) => {
        let body = ''
        response.setEncoding('utf8').on('data', (piece: string) => {
          body += piece
        })
        response.on('end', () =>
          response.statusCode === 201 ? resolve(JSON.parse(body).rev) : reject(new Error(body))
        )
      }
    )
    sent.on('error', reject).end(data)
  })
}
