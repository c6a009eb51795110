import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import type { Test } from 'tap'
import type { ChunkEntry, StoredHeader } from '../../lib/repository/layout.js'
import type { BackupSummary, DatabaseNames, StartOptions } from '../../types/index.js'
import { DATABASES, deleteDatabase, fetchAll, type TestDatabases } from './database.js'
import { difference, type Fingerprints, fingerprintsOf } from './fingerprints.js'
import { buildHost, type HostOptions, type TestHost } from './host.js'
import { poll } from './poll.js'
import { elements, members, type RawCouch, secondOfCreation, startRawCouch } from './raw-couch.js'
import { bytesOf } from './seed.js'

/** The databases of a chain of backups: sources, a backups database, and others that a test asks for. */
export interface ChainDatabases extends TestDatabases {
  names: Required<DatabaseNames>
  /** The raw server, unless the tests run on `COUCHDB_URL`. */
  raw: RawCouch | undefined
  /** Sends a request to the server. `body` is JSON as text, or what becomes one. */
  // biome-ignore lint/suspicious/noExplicitAny: tests know what they asked for
  call(method: string, path: string, body?: string | object): Promise<any>
  /** Creates a database that is deleted when the test ends. Returns its name. */
  create(what: string): Promise<string>
  /** Deletes a database and creates it anew at once: most often within the second in which it was created. */
  remake(database: string): Promise<void>
  /** Makes sure that databases were created some seconds before what comes next. */
  age(...databases: string[]): Promise<void>
  /** Writes documents, given as JSON or as objects. Returns what the server says of each. */
  write(
    database: string,
    documents: readonly (string | object)[],
    newEdits?: boolean
  ): Promise<{ id: string; rev?: string; error?: string }[]>
}

/** Sets up databases for chains, on the raw server or on `COUCHDB_URL`: both tell what a trusted base needs. */
export async function setupChain(t: Test): Promise<ChainDatabases> {
  const raw = process.env.COUCHDB_URL ? undefined : await startRawCouch({ created: secondOfCreation })
  const address = new URL(raw?.url ?? process.env.COUCHDB_URL ?? '')
  const url = address.href.replace(/\/$/, '')
  const authorization = `Basic ${Buffer.from(`${address.username}:${address.password}`).toString('base64')}`
  const couch = nano(url)
  const prefix = `t${randomBytes(6).toString('hex')}_`
  const created = new Set<string>()
  t.teardown(async () => {
    for (const name of raw ? [] : created) await deleteDatabase(couch, name)
    await raw?.close()
  })
  const call: ChainDatabases['call'] = async (method, path, body) => {
    const response = await fetch(`${address.origin}/${path}`, {
      method,
      body: body === undefined || typeof body === 'string' ? (body ?? null) : JSON.stringify(body),
      headers: { 'content-type': 'application/json', ...(address.username && { authorization }) }
    })
    return response.json()
  }
  const make = (name: string) =>
    poll(`a new ${name}`, async () => ((await call('PUT', name)).ok ? true : undefined))
  const create = async (what: string) => {
    const name = what.startsWith(prefix) ? what : prefix + what
    created.add(name)
    await make(name)
    return name
  }
  const names = {} as Required<DatabaseNames>
  const on: ChainDatabases = {
    couch,
    url,
    names,
    raw,
    real: !raw,
    fetchAll: (database) => fetchAll(couch, database),
    call,
    create,
    async remake(database) {
      await call('DELETE', database)
      await make(database)
    },
    async age(...databases) {
      for (const database of raw ? databases : []) raw!.store.get(database)!.created = '1700000000'
      // the server tells whole seconds
      if (!raw) await delay(2100)
    },
    async write(database, documents, newEdits = true) {
      const docs = documents.map((doc) => (typeof doc === 'string' ? doc : JSON.stringify(doc)))
      return call('POST', `${database}/_bulk_docs`, `{"new_edits":${newEdits},"docs":[${docs.join(',')}]}`)
    }
  }
  for (const logical of DATABASES) names[logical] = await create(logical)
  names.backups = await create('backups')
  await on.age(names.components, names.sessions, names.system)
  return on
}

/** Makes a backup. @throws when it fails */
export async function backUp(host: TestHost, options: StartOptions = {}): Promise<BackupSummary> {
  const { finished } = await host.app.dbBackups.start(options)
  return finished
}

/** Sends a backup as the API does. */
export async function download(host: TestHost, id: string): Promise<Buffer> {
  const { body, length } = await host.app.dbBackups.get(id)
  const bytes = Buffer.concat(await body.toArray())
  if (length !== undefined && length !== bytes.length)
    throw new Error(`${id}: ${bytes.length} bytes instead of ${length}`)
  return bytes
}

/** The bytes of the documents of each database, by their ids. */
type Content = Record<string, Map<string, string>>

/** Returns the documents of a backup that was sent, without parsing them. @throws when a document comes twice */
export function contentOf(sent: Buffer): Content {
  const content: Content = {}
  const dbs = members(sent).find(({ key }) => key === 'dbs')!
  for (const { key, start } of members(sent, dbs.start)) {
    const docs = new Map<string, string>()
    content[key] = docs
    const list = members(sent, start).find((member) => member.key === 'docs')
    for (const element of list ? elements(sent, list.start) : []) {
      const _id = members(sent, element.start).find((member) => member.key === '_id')!
      const id: string = JSON.parse(sent.toString('utf8', _id.start, _id.end))
      if (docs.has(id)) throw new Error(`${key}: "${id}" comes twice`)
      docs.set(id, sent.toString('latin1', element.start, element.end))
    }
  }
  return content
}

/** Tells how two backups differ in what a client gets. Empty when they do not. */
export async function contentDifferences(
  [host, summary]: [TestHost, BackupSummary],
  [otherHost, other]: [TestHost, BackupSummary]
): Promise<string[]> {
  const found: string[] = []
  for (const [key, { doc_count, conflict_count, raw_bytes }] of Object.entries(other.dbs)) {
    const expected = { doc_count, conflict_count, raw_bytes }
    for (const [count, value] of Object.entries(expected)) {
      const told = summary.dbs[key]?.[count as keyof typeof expected]
      if (told !== value) found.push(`${key}: ${count} is ${told}, not ${value}`)
    }
  }
  if (summary.doc_count !== other.doc_count)
    found.push(`doc_count is ${summary.doc_count}, not ${other.doc_count}`)
  const [content, wanted] = [
    contentOf(await download(host, summary.id)),
    contentOf(await download(otherHost, other.id))
  ]
  for (const [key, documents] of Object.entries(wanted)) {
    const held = content[key] ?? new Map<string, string>()
    const name = (id: string) => `${key} "${id.slice(0, 40)}"`
    for (const [id, bytes] of documents) {
      if (!held.has(id)) found.push(`${name(id)} is missing`)
      else if (held.get(id) !== bytes) found.push(`${name(id)} is different`)
    }
    for (const id of held.keys()) if (!documents.has(id)) found.push(`${name(id)} is too many`)
  }
  return found
}

/** Returns the fingerprints of each source's live documents, without those of excluded types. */
export async function truthOf(
  on: TestDatabases,
  names: DatabaseNames,
  excluded: readonly string[] = []
): Promise<Record<string, Fingerprints>> {
  const truth: Record<string, Fingerprints> = {}
  const left = new Set<unknown>(['session_athena', 'pillow_talk_doc', 'json_validation', ...excluded])
  for (const logical of DATABASES) {
    const documents = await on.fetchAll(names[logical])
    const kept = [...documents.values()].filter(({ type }) => !left.has(type))
    truth[logical] = fingerprintsOf(kept)
  }
  return truth
}

/** A pair of hosts on the same sources: one makes a chain, the other full backups in a database of their own. */
export interface Pair {
  chain: TestHost
  full: TestHost
}

/** Builds hosts for a chain, and for full backups to compare it with. */
export async function buildPair(t: Test, on: ChainDatabases, options: HostOptions = {}): Promise<Pair> {
  const fulls = `${on.names.components.replace(/components$/, '')}fulls`
  if ((await on.call('GET', fulls)).error) await on.create(fulls)
  const host = (backups: string) => buildHost(t, { on, ...options, databases: { ...on.names, backups } })
  return { chain: await host(on.names.backups), full: await host(fulls) }
}

/** Returns all chunk entries that a header lists for a database, those in its manifests included. */
export async function listedChunks(
  on: TestDatabases,
  backups: string,
  id: string,
  database: (typeof DATABASES)[number]
): Promise<ChunkEntry[]> {
  const db = on.couch.use(backups)
  const { storage } = (await db.get(id)) as unknown as {
    storage: { databases: Record<string, { manifests: { id: string }[]; chunks: ChunkEntry[] }> }
  }
  const stored = storage.databases[database]
  const listed: ChunkEntry[] = []
  for (const manifest of stored?.manifests ?? []) {
    const { entries } = (await db.get(manifest.id)) as unknown as { entries: string }
    listed.push(...(JSON.parse(entries) as ChunkEntry[]))
  }
  return [...listed, ...(stored?.chunks ?? [])]
}

/** Returns text of about `size` bytes that does not compress, the same for the same name. */
export const textOf = (name: string, size: number) => bytesOf(name, Math.ceil(size * 0.75)).toString('base64')

/** Returns documents of about 1 KB as JSON. */
export const documents = (count: number, prefix = 'doc', v = 0, size = 900): object[] =>
  Array.from({ length: count }, (_, i) => {
    const _id = `${prefix}_${String(i).padStart(5, '0')}`
    return { _id, type: 'fabric-peer', v, text: textOf(`${_id} ${v}`, size) }
  })

/** Writes documents over those that are there. */
export async function change(on: ChainDatabases, database: string, changed: readonly { _id: string }[]) {
  const keys = changed.map(({ _id }) => _id)
  const { rows } = await on.call('POST', `${database}/_all_docs`, { keys })
  const revs = new Map<string, string>()
  for (const { id, value } of rows) if (value && !value.deleted) revs.set(id, value.rev)
  const docs = changed.map((doc) => ({ ...doc, ...(revs.has(doc._id) && { _rev: revs.get(doc._id) }) }))
  const results = await on.write(database, docs)
  const refused = results.filter(({ error }) => error)
  if (refused.length > 0) throw new Error(JSON.stringify(refused))
  return results
}

/** Returns documents with these ids, whose content is another one at each call. */
export const docs = (...ids: string[]) =>
  ids.map((_id, i) => ({ _id, type: 'msp', v: Date.now() + i, text: textOf(`${_id} ${Date.now()}`, 500) }))

/** Deletes documents. */
export const remove = (on: ChainDatabases, database: string, ...ids: string[]) =>
  change(on, database, ids.map((_id) => ({ _id, _deleted: true })) as { _id: string }[])

/** Makes a backup, and checks that it holds what a full one does, and what the sources do. */
export async function backUpRightly(
  t: Test,
  on: ChainDatabases,
  pair: Pair,
  what: string
): Promise<BackupSummary> {
  const truth = await truthOf(on, on.names)
  const summary = await backUp(pair.chain)
  await checkContent(t, pair, summary, truth, what)
  return summary
}

/** Checks that a backup holds what a full one does, and what the sources held when `truth` was read. */
export async function checkContent(
  t: Test,
  pair: Pair,
  summary: BackupSummary,
  truth: Awaited<ReturnType<typeof truthOf>>,
  what: string
) {
  const full = await backUp(pair.full, { full: true })
  t.strictSame(
    await contentDifferences([pair.chain, summary], [pair.full, full]),
    [],
    `${what}: as a full one`
  )
  const { dbs } = JSON.parse((await download(pair.chain, summary.id)).toString())
  for (const logical of DATABASES) {
    const found = fingerprintsOf(dbs[`athena_${logical}`].docs)
    t.equal(difference(truth[logical]!, found), '', `${what}: as ${logical} are`)
  }
}

/** Sets up sources with some documents, and hosts on them. */
export async function setupPair(t: Test, options: HostOptions & { count?: number } = {}) {
  const { count = 300, ...host } = options
  const on = await setupChain(t)
  await on.write(on.names.components, documents(count))
  await on.write(on.names.sessions, documents(30))
  await on.write(on.names.system, documents(30))
  const pair = await buildPair(t, on, host)
  return { on, pair }
}

/** Reads the header of a backup as it is stored. */
export const headerOf = async (on: ChainDatabases, id: string) =>
  (await on.couch.use(on.names.backups).get(id)) as unknown as StoredHeader
