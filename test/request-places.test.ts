import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions } from './helpers/host.js'

/** Requests that are answered at a time, and that may wait. */
const ANSWERED = 16
const WAITING = 256

/** How it is asked who holds the lease. */
const LEASE = /_bulk_get$/

async function setup(t: Test, options: HostOptions = {}) {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch, ...options })
  return { gate, host, api: apiOf(host) }
}

const counted = (values: readonly number[]) =>
  Object.fromEntries(
    [...new Set(values)].sort().map((value) => [value, values.filter((v) => v === value).length])
  )

for (const [what, method, path] of [
  ['starts', 'POST', ''],
  ['restores by id', 'PUT', '/03_ibp_db_backup_1592924104038']
] as const)
  t.test(`${what}: a few are answered at a time, some wait, and more are refused at once`, async (t) => {
    const { gate, api } = await setup(t)
    const release = gate.hold(LEASE)
    const before = gate.requests.length
    const more = 20
    const replies = Array.from({ length: ANSWERED + WAITING + more }, async () => api.call(method, path))
    for (const reply of await Promise.all(replies.slice(ANSWERED + WAITING))) {
      t.equal(reply.statusCode, 503)
      t.match(reply.json(), { code: 'DB_BACKUPS_TOO_MANY_REQUESTS' })
      t.equal(reply.headers['retry-after'], '5')
    }
    t.equal((await api.call('GET')).statusCode, 200, 'a list is sent meanwhile')
    const asked = gate.requests.slice(before).filter((line) => LEASE.test(line))
    // One more is for leases that instances have left.
    t.ok(asked.length <= ANSWERED + 1, `${asked.length} ask the database`)
    release()
    const statuses = counted((await Promise.all(replies)).map(({ statusCode }) => statusCode))
    t.equal(statuses[503], more)
    t.equal((statuses[202] ?? 0) + statuses[400]!, ANSWERED + WAITING)
  })

t.test('no more appends are sent to the database at a time than are received', async (t) => {
  const { gate, api } = await setup(t, { limits: { appends: 2 } })
  const ids = [await api.backup(), await api.backup(), await api.backup()]
  const sent = /PUT .*\/appended/
  const release = gate.hold(sent)
  const before = gate.requests.length
  const appends = ids.flatMap((id) => ['appended1', 'appended2'].map((name) => ({ id, name })))
  const replies = appends.map(async ({ id, name }) =>
    api.call('PUT', `/${id}/attachments/${name}`, { attachment: 'x' })
  )
  await gate.held(sent)
  await delay(300)
  const begun = gate.requests.slice(before).filter((line) => sent.test(line))
  t.ok(begun.length <= 2, `${begun.length} are sent`)
  release()
  t.strictSame(counted((await Promise.all(replies)).map(({ statusCode }) => statusCode)), { 200: 6 })
})

t.test('an upload has its place until its restore has begun', async (t) => {
  const { gate, api } = await setup(t, { limits: { uploads: 1 } })
  const upload = async () => api.call('PUT', '', backupOf([]))
  const release = gate.hold(LEASE)
  const first = upload()
  await gate.held(LEASE)
  const second = await upload()
  t.equal(second.statusCode, 503)
  t.match(second.json(), { code: 'DB_BACKUPS_TOO_MANY_UPLOADS' })
  release()
  t.equal((await first).statusCode, 202)
})

t.test('lists that are sent at the same time share their bytes', async (t) => {
  const sent: unknown[] = []
  const extend: HostOptions['extend'] = (app) =>
    app.addHook('onSend', async (_request, _reply, payload) => void sent.push(payload))
  const { api } = await setup(t, { extend })
  const replies = await Promise.all(Array.from({ length: 20 }, async () => api.call('GET')))
  for (const reply of replies) t.same(reply.json(), { ids: [] })
  t.equal(sent.length, 20)
  t.ok(new Set(sent).size <= 2, 'those that came while the first was read have the next in common')
})
