import t, { type Test } from 'tap'
import { buildHost } from './helpers/host.js'
import { agreeing, noAdministrator, type Responder, setupReplicas, shards } from './helpers/replicas-proxy.js'
import { encryptionOf } from './helpers/sealed.js'

/** Makes so many backups. */
async function backUp(
  dbBackups: { start(options: { full: true }): Promise<{ id: string; finished: Promise<unknown> }> },
  count: number
) {
  const ids: string[] = []
  for (let i = 0; i < count; i++) {
    const { id, finished } = await dbBackups.start({ full: true })
    await finished
    ids.push(id)
  }
  return ids
}

t.test('on a cluster, a removal first has the replicas of the backups database agree', async (t) => {
  const { raw, on, cluster } = await setupReplicas(t, [agreeing])
  await raw.write(raw.names.components, ['{"_id":"a"}'])
  const { dbBackups } = (await buildHost(t, { on })).app
  const [first, newest] = await backUp(dbBackups, 2)
  cluster.requests.length = 0
  t.match(await dbBackups.remove(first!), { parts: 2 }, 'a chunk and its index')
  t.strictSame(await dbBackups.list(), { ids: [newest] })
  const indexOf = (line: RegExp) => cluster.requests.findIndex((request) => line.test(request))
  const asked = indexOf(new RegExp(`^POST /${on.names.backups}/_sync_shards`))
  t.ok(asked >= 0)
  t.ok(asked < indexOf(/_all_docs.*03_ibp/), 'before the headers are listed')
  t.ok(asked < indexOf(/^PUT .*03_ibp/), 'before one is marked')
})

t.test(
  'without a server administrator, who could ask, nothing is removed: a header may not be seen',
  async (t) => {
    const { raw, on } = await setupReplicas(t, [noAdministrator])
    await raw.write(raw.names.components, ['{"_id":"a"}'])
    const { dbBackups } = (await buildHost(t, { on })).app
    const ids = await backUp(dbBackups, 2)
    const refused = { name: 'CouchError', error: 'replicas_unchecked' }
    await t.rejects(dbBackups.remove(ids[0]!), refused)
    await t.rejects(dbBackups.prune({ keep: { last: 1 } }), refused)
    t.strictSame(await dbBackups.list(), { ids })
    await (await dbBackups.restore({ id: ids[0]! })).finished
  }
)

t.test('parts whose header a list does not show are not taken for orphans', async (t) => {
  let hidden = ''
  const hiding: Responder = async ({ line, forward }) => {
    if (!hidden || !/_all_docs/.test(line)) return undefined
    const { status, json } = await forward()
    const { rows } = json as { rows: { id: string }[] }
    return { status, json: { rows: rows.filter(({ id }) => id !== hidden) } }
  }
  const { raw, on } = await setupReplicas(t, [hiding, agreeing])
  await raw.write(raw.names.components, ['{"_id":"a"}'])
  const { dbBackups } = (await buildHost(t, { on })).app
  const [first, second] = await backUp(dbBackups, 3)
  hidden = second!
  const { orphans } = await dbBackups.prune({ keep: { last: 1 }, orphans: true })
  t.match(orphans, { parts: 0 })
  hidden = ''
  t.notOk((await dbBackups.list()).ids.includes(first!))
  await (await dbBackups.restore({ id: second! })).finished
})

/** Sets up three backups, the second based on the first, and a node that starts once replicas have agreed, and hides the second. */
async function setupStarting(t: Test) {
  let started = false
  let agreed = false
  let hidden = ''
  const starting: Responder = async ({ line, forward }) => {
    if (/_sync_shards/.test(line)) agreed = true
    if (!hidden || !agreed || !/_all_docs.*03_ibp/.test(line)) return undefined
    started = true
    const { status, json } = await forward()
    const { rows } = json as { rows: { id: string }[] }
    return { status, json: { rows: rows.filter(({ id }) => id !== hidden) } }
  }
  const uptime = (node: string) => (started && node === 'b@x' ? 1 : 3600 + performance.now() / 1000)
  const { raw, on } = await setupReplicas(t, [starting, shards({ knows: () => true, uptime })])
  await raw.write(raw.names.components, ['{"_id":"a"}'])
  const { dbBackups } = (await buildHost(t, { on })).app
  const [first] = await backUp(dbBackups, 1)
  await raw.write(raw.names.components, ['{"_id":"b"}'])
  const { id: second } = await (await dbBackups.start()).finished
  await raw.write(raw.names.components, ['{"_id":"c"}'])
  const [third] = await backUp(dbBackups, 1)
  return {
    on,
    dbBackups,
    ids: [first!, second, third!] as const,
    async whileItStarts(call: () => Promise<unknown>) {
      agreed = false
      hidden = second
      await call()
      hidden = ''
      started = false
    }
  }
}

t.test('a rekeying deletes nothing where a list may not show a backup', async (t) => {
  const { on, ids, whileItStarts } = await setupStarting(t)
  const { dbBackups } = (await buildHost(t, { on, encryption: encryptionOf('k1') })).app
  await whileItStarts(() => t.rejects(dbBackups.rekey(), { message: /replicas_behind/ }))
  for (const id of ids) await (await dbBackups.restore({ id })).finished
  t.match(await dbBackups.rekey(), { left: [], rekeyed: [ids[1]] })
  for (const id of ids) await (await dbBackups.restore({ id })).finished
  const unasked = await setupReplicas(t, [noAdministrator])
  const other = (await buildHost(t, { on: unasked.on, encryption: encryptionOf('k1') })).app.dbBackups
  await backUp(other, 1)
  await t.rejects(other.rekey(), { name: 'CouchError', error: 'replicas_unchecked' })
})

t.test('a removal ends where a node has started meanwhile: its list may lack a backup', async (t) => {
  const { dbBackups, ids, whileItStarts } = await setupStarting(t)
  const [first, second, third] = ids
  await whileItStarts(() => t.rejects(dbBackups.remove(first), { message: /replicas_behind/ }))
  t.strictSame(await dbBackups.list(), { ids: [first, second, third] })
  await (await dbBackups.restore({ id: second })).finished
  await dbBackups.remove(first)
  t.strictSame(await dbBackups.list(), { ids: [second, third] })
  await (await dbBackups.restore({ id: second })).finished
})
