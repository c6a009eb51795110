import t, { type Test } from 'tap'
import { CouchClient } from '../lib/couch/client.js'
import { connectionTo } from '../lib/couch/connection.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { settleReplicas } from '../lib/couch/replicas.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { agreeing, noAdministrator, type Responder, setupReplicas, shards } from './helpers/replicas-proxy.js'

async function setup(t: Test, replicas: readonly Responder[]) {
  const { raw, cluster } = await setupReplicas(t, replicas)
  const client = new CouchClient({
    connect: () => connectionTo(cluster.couch),
    retry: { attempts: 3, wait: 1, longest: 1 },
    control: 5000,
    idle: 5000
  })
  t.teardown(() => client.close())
  const db = new CouchDatabase(client, raw.names.components)
  const settle = async (longestWait?: number) => settleReplicas(db, await db.info(), longestWait)
  return { settle, requests: cluster.requests }
}

t.test('replicas that have what the others have agree at once', async (t) => {
  const { settle, requests } = await setup(t, [agreeing])
  t.equal(await settle(), 'agree')
  t.match(requests[1], /^POST .*_sync_shards$/, 'the nodes are told to bring each other up to date first')
})

t.test('a replica that lags is waited for', async (t) => {
  let asks = 0
  const lagging = shards({
    knows(node, asked) {
      asks = asked
      return node !== 'c@x' || asked > 9
    }
  })
  const { settle } = await setup(t, [lagging])
  t.equal(await settle(), 'agree')
  t.ok(asks > 9, 'it was asked until it knew')
})

t.test('a replica that goes on lagging is not waited for longer than the bound', async (t) => {
  const { settle } = await setup(t, [shards({ knows: (node) => node !== 'c@x' })])
  const before = performance.now()
  t.equal(await settle(300), 'behind')
  t.ok(performance.now() - before < 3000)
})

t.test('a node that does not answer ends no later', async (t) => {
  const hangs: Responder = ({ line }) => (/_local_docs/.test(line) ? new Promise<never>(() => {}) : undefined)
  const { settle } = await setup(t, [hangs, agreeing])
  const before = performance.now()
  t.equal(await settle(300), 'behind')
  t.ok(performance.now() - before < 3000)
})

t.test('replicas on nodes that are down are not waited for', async (t) => {
  const up = ['a@x', 'b@x']
  const { settle, requests } = await setup(t, [shards({ up, knows: (node) => up.includes(node) })])
  t.equal(await settle(), 'agree')
  t.notOk(
    requests.some((line) => line.includes('c%40x')),
    'nor asked'
  )
})

t.test('a node that goes down while it is asked is not asked any more', async (t) => {
  let asked = 0
  const goes: Responder = ({ line }) =>
    /_node\/c%40x/.test(line) && asked++ === 0
      ? { status: 412, json: { error: 'nodedown', reason: 'c@x is down' } }
      : undefined
  const { settle } = await setup(t, [goes, agreeing])
  t.equal(await settle(), 'agree')
  t.ok(asked > 1)
})

t.test('an empty database has replicas that agree', async (t) => {
  const { settle } = await setup(t, [shards({ knows: () => false, seq: 0 })])
  t.equal(await settle(), 'agree')
})

t.test(
  'the plugin neither checks nor waits for replicas without the rights of a server administrator',
  async (t) => {
    const { settle, requests } = await setup(t, [noAdministrator])
    t.equal(await settle(), 'unchecked')
    t.equal(requests.length, 2, 'and not asked twice')
  }
)

t.test('a server that answers something else tells nothing', async (t) => {
  for (const [path, json] of [
    [/_shards$/, {}],
    [/_membership/, { all_nodes: null }],
    [/_node\//, { hello: 'world' }]
  ] as const) {
    const odd: Responder = ({ line }) => (path.test(line) ? { status: 200, json } : undefined)
    const { settle } = await setup(t, [odd, agreeing])
    t.equal(await settle(2000), 'unchecked', String(path))
  }
})

t.test('a server that tells odd things of its nodes is restored into all the same', async (t) => {
  for (const json of [{ all_nodes: null }, {}, { all_nodes: ['a@x'] }]) {
    const odd: Responder = ({ line }) => (/_membership/.test(line) ? { status: 200, json } : undefined)
    const { raw, on } = await setupReplicas(t, [odd, agreeing])
    await raw.write(raw.names.components, ['{"_id":"a"}'])
    const api = apiOf(await buildHost(t, { on }))
    const id = await api.backup()
    t.match(await api.restore(id), { status: 'success', databases: { components: { unchanged: 1 } } })
  }
})

t.test('a backup says that the replicas of a database were not seen to agree', async (t) => {
  for (const [replicas, told] of [
    [noAdministrator, 'unchecked'],
    [agreeing, undefined]
  ] as const) {
    const { raw, on } = await setupReplicas(t, [replicas])
    await raw.write(raw.names.components, ['{"_id":"a"}'])
    const api = apiOf(await buildHost(t, { on }))
    const backup = await api.get(await api.backup())
    t.equal(backup.dbs.athena_components!.copies, told)
    t.equal((await api.restore(backup)).status, 'success', 'its download can be restored')
  }
})

t.test('a restore with "exact" says so as well', async (t) => {
  const { on } = await setupReplicas(t, [noAdministrator])
  const host = await buildHost(t, { on })
  const id = await apiOf(host).backup()
  const { tx_id, finished } = await host.app.dbBackups.restore({ id }, { exact: true })
  await finished
  const { athena_messages } = await host.waitForRestore(tx_id)
  t.match(athena_messages?.join(), /replicas of components were not seen to agree/)
})

t.test('a single node is not asked about replicas', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const api = apiOf(await buildHost(t, { on: { ...on, couch: gate.couch } }))
  await api.restore(await api.backup())
  t.notOk(gate.requests.some((line) => /_sync_shards|_shards|_membership|_node/.test(line)))
})
