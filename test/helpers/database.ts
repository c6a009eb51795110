import { randomBytes } from 'node:crypto'
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
  /** With the credentials, when there are any. */
  url: string
  names: Record<LogicalDatabase, string>
  /** `true` on `COUCHDB_URL`: tests of what only a real CouchDB does ask this. */
  real: boolean
  /** All documents with their attachments inline. They pass `JSON.parse`, so this proves nothing about bytes. */
  fetchAll(database: string): Promise<Snapshot>
}

const LOGICAL: readonly LogicalDatabase[] = ['components', 'sessions', 'system']
const INTERNAL_TYPES: readonly unknown[] = [
  'athena_backup',
  'athena_backup_chunk',
  'athena_backup_manifest',
  'athena_backup_lease',
  'athena_backup_notice',
  'webhook_tx'
]

/** Three empty databases on an embedded server of their own, or on `COUCHDB_URL`; deleted when the test ends. */
export async function setupDatabases(
  t: Test,
  options: { names?: Partial<Record<LogicalDatabase, string>> } = {}
): Promise<TestDatabases> {
  const embedded = process.env.COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const url = embedded?.url ?? process.env.COUCHDB_URL ?? ''
  const couch = nano(url)
  const prefix = `t${randomBytes(6).toString('hex')}_`
  const entries = LOGICAL.map((logical) => [logical, options.names?.[logical] ?? prefix + logical])
  const names = Object.fromEntries(entries) as Record<LogicalDatabase, string>
  t.teardown(async () => {
    for (const name of embedded ? [] : Object.values(names)) {
      // a test may have deleted it
      await couch.db.destroy(name).catch((error: { statusCode?: number }) => {
        if (error.statusCode !== 404) throw error
      })
    }
    await embedded?.close()
  })
  for (const name of Object.values(names)) await couch.db.create(name)
  return { couch, url, names, real: !embedded, fetchAll: (database) => fetchAll(couch, database) }
}

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

export interface CompareOptions {
  /** Whether revisions have to be the same. Default `false`. */
  rev?: boolean
}

/** Fails when a document is missing, new or another one. This package's own documents do not count. */
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
    if (INTERNAL_TYPES.includes(document.type)) continue
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

/** Deletes a database and creates it anew: on a busy machine CouchDB may find it a moment longer. */
export async function recreate(couch: ServerScope, name: string): Promise<void> {
  await poll(`an empty ${name}`, async () => {
    await ignoring(404, couch.db.destroy(name))
    return (await ignoring(412, couch.db.create(name))) ? true : undefined
  })
}

async function ignoring(status: number, call: Promise<unknown>): Promise<boolean> {
  return call.then(
    () => true,
    (error: { statusCode?: number }) => {
      if (error.statusCode !== status) throw error
      return false
    }
  )
}
