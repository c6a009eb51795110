/** A restore into a database of more documents than it holds at a time goes through the backup once for each part. */
import { createServer, request as send } from 'node:http'
import { Readable } from 'node:stream'
import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { compareDatabases, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { listenInFrontOf } from './helpers/listen.js'

/** Starts a proxy that says of one database that it holds this many documents. Counts scans of the database. */
async function startTeller(t: Test, url: string, database: string, documents: number) {
  const target = new URL(url)
  let scans = 0
  const server = createServer(async (request, response) => {
    const { method = 'GET', url: path = '/', headers } = request
    if (method === 'GET' && path === `/${database}`) {
      const info = await nano(url).db.get(database)
      response.setHeader('content-type', 'application/json')
      return void response.end(JSON.stringify({ ...info, doc_count: documents }))
    }
    if (path.startsWith(`/${database}/_all_docs`)) scans++
    const onward = send({ host: target.hostname, port: target.port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    request.pipe(onward)
  })
  const couch = nano(await listenInFrontOf(t, server, url))
  return { couch, scans: () => scans }
}

const DESIGN = { _id: '_design/d', views: {} }

for (const source of ['a stored backup', 'an upload'] as const) {
  t.test(`in parts, each document of ${source} is decided on once`, async (t) => {
    const on = await setupDatabases(t)
    const { components } = on.names
    const db = on.couch.use(components)
    const docs = Array.from({ length: 90 }, (_, i) => ({ _id: `doc ${i}`, v: i }))
    await db.bulk({ docs: [...docs, DESIGN] } as never)
    const before = await on.fetchAll(components)
    const stored = source === 'a stored backup' ? await apiOf(await buildHost(t, { on })).backup() : undefined
    const late = Array.from({ length: 30 }, (_, i) => ({ _id: `late ${i}` }))
    const revised = docs.slice(0, 30).map(({ _id }) => ({ _id, _rev: before.get(_id)!._rev, v: 'other' }))
    const gone = docs.slice(30, 60).map(({ _id }) => ({ _id, _rev: before.get(_id)!._rev, _deleted: true }))
    await db.bulk({ docs: [...late, ...revised, ...gone] } as never)

    const upload = JSON.stringify({ dbs: { components: { docs: [...docs, DESIGN] } } })
    const teller = await startTeller(t, on.url, components, 1_200_000)
    const { app } = await buildHost(t, { on: { ...on, couch: teller.couch } })
    const from = () => (stored ? { id: stored } : { body: Readable.from([upload]) })
    const counts = { total: 91, created: 30, changed: 30, unchanged: 31, deleted: 30, failed: 0 }
    const dry = await (await app.dbBackups.restore(from(), { exact: true, dryRun: true })).finished
    t.match(dry.databases.components, counts, 'a dry run tells the same')
    t.equal(teller.scans(), 6, 'three scans for decisions, three for deletions')
    const done = await (await app.dbBackups.restore(from(), { exact: true })).finished
    t.match(done.databases.components, counts)
    compareDatabases(t, before, await on.fetchAll(components))
  })
}
