import t, { type Test } from 'tap'
import type { DatabaseNames } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { startAnsweringCouch } from './helpers/couch-client.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { load } from './helpers/seed.js'

/** Servers that show how a database was created. */
const servers: Record<string, (t: Test) => Promise<TestDatabases & { names: DatabaseNames }>> = {
  raw: setupRawDatabases,
  ...(process.env.COUCHDB_URL && { couchdb: (t: Test) => setupDatabases(t) })
}

const design = {
  _id: '_design/views',
  options: { partitioned: true },
  views: { a: { map: 'function (d) {}' } }
}
const global = {
  _id: '_design/global',
  options: { partitioned: false },
  views: { a: { map: 'function (d) {}' } }
}
const documents = [{ _id: 'org1:peer' }, { _id: 'org2:peer' }, design, global]
const ids = (docs: readonly { _id: string }[]) => docs.map(({ _id }) => _id).sort()

async function setup(t: Test, server: string) {
  const on = await servers[server]!(t)
  const { components } = on.names
  const host = await buildHost(t, { on, databases: on.names })
  const make = async (query: string, docs: object[]) => {
    await on.couch.db.destroy(components)
    await fetch(`${on.url.replace(/\/\/.*@/, '//')}/${components}${query}`, {
      method: 'PUT',
      headers: auth(on.url)
    })
    if (docs.length > 0) await load(on.couch.use(components), docs as never)
  }
  const info = async () => {
    const { props, cluster } = (await on.couch.db.get(components)) as unknown as {
      props: { partitioned?: boolean }
      cluster: { q: number }
    }
    return { partitioned: props.partitioned === true, q: cluster.q }
  }
  const held = async () => {
    const { rows } = await on.couch.use(components).list()
    return rows.map(({ id }) => id).sort()
  }
  return { on, components, api: apiOf(host), host, make, info, held }
}

function auth(url: string): Record<string, string> {
  const { username, password } = new URL(url)
  return username ? { authorization: `Basic ${btoa(`${username}:${password}`)}` } : {}
}

for (const server of Object.keys(servers)) {
  t.test(`${server}: a database that is missing is created as it was`, async (t) => {
    const { on, components, api, make, info, held } = await setup(t, server)
    for (const [partitioned, q, docs] of [
      [true, 3, documents],
      [false, 5, [{ _id: 'a' }, global]]
    ] as const) {
      await make(`?partitioned=${partitioned}&q=${q}`, [...docs])
      const id = await api.backup()
      const backup = await api.get(id)
      t.match(backup.dbs.athena_components, { partitioned, q })
      for (const source of [id, backup]) {
        await on.couch.db.destroy(components)
        const { status, databases } = await api.restore(source)
        t.equal(status, 'success')
        t.match(databases, { components: { created: docs.length, failed: 0 } })
        t.strictSame(await info(), { partitioned, q })
        t.strictSame(await held(), ids(docs))
      }
    }
  })

  t.test(`${server}: an upload that says nothing of it creates what the server does by itself`, async (t) => {
    const { on, components, api, info } = await setup(t, server)
    const before = await info()
    await on.couch.db.destroy(components)
    t.equal((await api.restore(backupOf([{ _id: 'a' }]))).status, 'success')
    t.strictSame(await info(), before)
  })

  t.test(`${server}: a database that exists stays as it is; what it cannot hold is named`, async (t) => {
    const { api, host, make, info, held } = await setup(t, server)
    const plain = [{ _id: 'a' }, { _id: 'b' }, { _id: 'org1:peer' }]
    const cases = [
      // in a database with deletions the restore first looks up former revisions
      { query: '?partitioned=true&q=2', before: [], deleted: false, sent: plain, refused: ['a', 'b'] },
      {
        query: '?partitioned=true&q=2',
        before: [{ _id: 'x:y' }],
        deleted: true,
        sent: plain,
        refused: ['a', 'b']
      },
      { query: '?q=2', before: [], deleted: false, sent: documents, refused: ['_design/views'] }
    ]
    for (const { query, before, deleted, sent, refused } of cases) {
      const other = query === '?q=2' ? '?partitioned=true&q=3' : '?q=3'
      await make(other, sent)
      const id = await api.backup()
      await make(query, before)
      const components = host.on.couch.use(host.on.names.components)
      if (deleted) await components.destroy('x:y', (await components.get('x:y'))._rev)
      const { status, failures, databases } = await api.restore(id)
      t.equal(status, 'error')
      t.strictSame(failures!.map((failure) => failure.id).sort(), refused)
      t.match(failures![0]!.reason, /partition/)
      t.match(databases, { components: { failed: refused.length, created: sent.length - refused.length } })
      t.match(await info(), { partitioned: query !== '?q=2', q: 2 })
      t.strictSame(
        await held(),
        ids(sent).filter((one) => !refused.includes(one))
      )
    }
  })
}

t.test('settings of a database in an upload are checked, and named', async (t) => {
  const on = await setupDatabases(t)
  const api = apiOf(await buildHost(t, { on }))
  const upload = (members: string) =>
    api.call('PUT', '', `{"dbs":{"athena_components":{${members}"docs":[{"_id":"a"}]}}}`)
  for (const [member, wrong] of Object.entries({
    q: ['0', '-1', '1.5', '"2"', 'null', '1025', '1e400', '[1]', '{"a":1}', 'true'],
    partitioned: ['1', '"true"', 'null', '{}', '[]']
  })) {
    for (const value of wrong) {
      const reply = await upload(`"${member}":${value},`)
      t.equal(reply.statusCode, 400, `${member}: ${value}`)
      t.match(reply.json().message, `"dbs.athena_components.${member}" must be`)
    }
    const long = await upload(`"${member}":"${'x'.repeat(300_000)}",`)
    t.match(long.json(), { statusCode: 400, message: /is too long|must be/ })
  }
  t.match((await upload('"q":2,"q":3,')).json(), { statusCode: 400, message: /q" stands there twice/ })
  t.strictSame([...(await on.fetchAll(on.names.components)).keys()], [], 'nothing was written')
  await on.couch.db.destroy(on.names.components)
  const after = '{"dbs":{"athena_components":{"docs":[{"_id":"a"}],"partitioned":false,"q":1024}}}'
  if (!on.real) t.equal((await api.restore(JSON.parse(after))).status, 'success', 'wherever it stands')
})

t.test('a server that refuses to create a database so is named, with what to do', async (t) => {
  const { db } = await startAnsweringCouch(t, (request, response) => {
    request.resume()
    response.setHeader('content-type', 'application/json')
    response.statusCode = request.method === 'PUT' ? 403 : 404
    response.end(
      JSON.stringify({ error: request.method === 'PUT' ? 'forbidden' : 'not_found', reason: 'no' })
    )
  })
  await t.rejects(db.ensure({ partitioned: true, q: 8 }), {
    status: 403,
    message: /PUT \/backups: forbidden, no \(.*partitioned=true and q=8.*create it yourself/
  })
  await t.rejects(db.ensure(), { message: 'PUT /backups: forbidden, no' })
})

t.test(
  'the embedded database tells nothing of it, and ignores it',
  { skip: !!process.env.COUCHDB_URL },
  async (t) => {
    const on = await setupDatabases(t)
    const api = apiOf(await buildHost(t, { on }))
    await load(on.couch.use(on.names.components), [{ _id: 'a' }] as never)
    const backup = await api.get(await api.backup())
    t.notOk('q' in backup.dbs.athena_components!)
    t.notOk('partitioned' in backup.dbs.athena_components!)
    await on.couch.db.destroy(on.names.components)
    Object.assign(backup.dbs.athena_components!, { partitioned: true, q: 4 })
    t.equal((await api.restore(backup)).status, 'success')
  }
)
