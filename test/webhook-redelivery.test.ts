import { createServer } from 'node:http'
import { json } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { createMemoryWebhookStore } from '../lib/index.js'
import type { WebhookTransaction } from '../types/index.js'
import { LEASE, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { startServer } from './helpers/server-process.js'

/** Starts a receiver that does not answer until the test allows it. */
async function startReceiver(t: Test) {
  const state = { received: [] as WebhookTransaction[], asked: 0, answering: false }
  const receiver = createServer(async (request, response) => {
    state.asked++
    if (!state.answering) return
    state.received.push((await json(request)) as WebhookTransaction)
    response.end()
  })
  const origin = await listen(t, receiver)
  return { state, url: `${origin}/done` }
}

async function until(what: string, done: () => Promise<boolean> | boolean): Promise<void> {
  const end = Date.now() + 60_000
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`)
    await delay(20)
  }
}

t.test('a client that could not be told before the server stopped is told by the next one', async (t) => {
  const { state, url: clientWebhookUrl } = await startReceiver(t)
  const on = await setupDatabases(t)
  const webhooks = createMemoryWebhookStore()
  const timeouts = { lease: 2000, close: 1000 }
  const first = await buildHost(t, { on, webhooks, timeouts })
  const backup = await first.app.dbBackups.start()
  await backup.finished
  const { tx_id: txId, finished } = await first.app.dbBackups.restore({ id: backup.id }, { clientWebhookUrl })
  await finished
  await until('the first attempt', () => state.asked > 0)
  await first.app.close()
  const cutOff = { attempts: 1, delivered: false, pending: true }
  t.strictSame((await webhooks.get(txId))?.client_webhook, cutOff, 'the first server did not succeed')

  state.answering = true
  const next = await buildHost(t, { on, webhooks, timeouts })
  // an operation in between takes the lease and must not lose the notice
  await (await next.app.dbBackups.start()).finished
  const delivery = async () => (await webhooks.get(txId))?.client_webhook
  await until('the delivery', async () => (await delivery())?.pending === undefined)
  t.strictSame(await delivery(), { attempts: 2, delivered: true, last_status: 200 })
  t.match(state.received, [{ tx_id: txId, status: 'success' }])
  t.notOk(state.received[0].client_webhook_url, 'the URL is not sent back')
  t.notOk(state.received[0].client_webhook, 'nor how often it was tried')
})

t.test('a client whose server is killed while it tells is told by the next server', async (t) => {
  const { state, url: client_webhook_url } = await startReceiver(t)
  const { url, names, couch } = await setupDatabases(t)
  const config = {
    url,
    databases: names,
    timeouts: { lease: 2000 },
    clientWebhook: { attempts: 2, timeout: 5000 }
  }
  const first = await startServer(t, config)
  const { json: restore } = await first.put('', {
    dbs: { athena_components: { docs: [{ _id: 'a' }] } },
    client_webhook_url
  })
  const txId = restore.url.split('/').at(-1)
  await until('the first attempt', () => state.asked > 0)
  first.signal('SIGKILL')
  await first.exited
  const delivery = async () => {
    const transaction = await couch.use(names.system).get(txId)
    return (transaction as unknown as WebhookTransaction).client_webhook
  }
  t.strictSame(await delivery(), { attempts: 1, delivered: false, pending: true }, 'the attempt is known')

  state.answering = true
  await startServer(t, config)
  await until('the delivery', async () => (await delivery())?.delivered === true)
  t.strictSame(await delivery(), { attempts: 2, delivered: true, last_status: 200 })
  t.match(state.received, [{ tx_id: txId, status: 'success' }])
})

/** Writes a free lease in which an earlier version has listed clients that are still to be told. */
const noting = (notify: string[]) => ({ type: LEASE, claim: 'old', beat: 1, notify })

t.test('clients that an earlier version noted in the lease are told', async (t) => {
  const { state, url: client_webhook_url } = await startReceiver(t)
  state.answering = true
  const on = await setupDatabases(t)
  const backups = `${on.names.system}_kept`
  await on.couch.db.create(backups)
  t.teardown(() => on.couch.db.destroy(backups))
  const system = on.couch.use<object>(on.names.system)
  const webhooks = createMemoryWebhookStore()
  for (const tx_id of ['first', 'second', 'third']) {
    const about = { type: 'webhook_tx', sub_type: 'backup_restore', status: 'success', client_webhook_url }
    await webhooks.create({ tx_id, ...about } as unknown as WebhookTransaction)
  }
  const told = (txId: string) => async () => (await webhooks.get(txId))?.client_webhook?.delivered === true
  await system.insert(noting(['first']), LEASE)
  await on.couch.use<object>(backups).insert(noting(['second']), LEASE)

  const databases = { ...on.names, backups }
  const { app } = await buildHost(t, { on, databases, webhooks, timeouts: { lease: 2000 } })
  await until('the client noted in the lease', told('first'))
  await until('the client noted where backups are kept', told('second'))

  const { _rev } = await system.get(LEASE)
  await system.insert({ ...noting(['third']), _rev }, LEASE)
  await (await app.dbBackups.start()).finished
  for (const lease of [system, on.couch.use<object>(backups)])
    t.notOk('notify' in (await lease.get(LEASE)), 'the backup has written over the note')
  await until('the client noted while the server ran', told('third'))
  t.strictSame(state.received.map(({ tx_id }) => tx_id).sort(), ['first', 'second', 'third'])
})
