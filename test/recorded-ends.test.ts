import { setTimeout as delay } from 'node:timers/promises'
import nano from 'nano'
import t, { type Test } from 'tap'
import { createCouchWebhookStore } from '../lib/index.js'
import { LEASE } from './helpers/database.js'
import { type ObservedHost, observe, seeded } from './helpers/observed-host.js'

/** Milliseconds for which the database fails: longer than three attempts of a call that somebody waits for. */
const OUTAGE = 2500
/** A document that is deleted between the backup and its restore. */
const LOST = 'secret_components_00000000'
const ALWAYS = Number.POSITIVE_INFINITY

/** Has the database answer 503 to everything, for a while. Resolves when that is over. */
async function outage({ proxy }: ObservedHost): Promise<void> {
  proxy.add({ fault: 'status_503', times: ALWAYS })
  await delay(OUTAGE)
  await proxy.clear()
}

/** Checks that the end was recorded and the lease was given back. */
async function checkEnd(t: Test, { on, events }: ObservedHost): Promise<void> {
  const types = events.map(({ type }) => type)
  t.notOk(types.includes('failure_not_recorded'), String(types))
  t.notOk('operation' in (await on.couch.use(on.names.system).get(LEASE)), 'the lease is free')
}

t.test('the failure of a backup is recorded by a database that fails for a while', async (t) => {
  const host = await observe(t, { retry: undefined })
  const { proxy, app, on } = host
  let over: Promise<void> | undefined
  // Once the source is read, nothing but the end is left to be done.
  proxy.add({ fault: 'status_403', path: new RegExp(`${on.names.components}/_changes`) })
  proxy.onRequest = ({ path }) => {
    if (path.includes('_changes')) over ??= outage(host)
    return undefined
  }
  const { id, finished } = await app.dbBackups.start()
  await t.rejects(finished, { status: 403 } as object as Error)
  await over
  t.match(await app.dbBackups.summary(id), { in_progress: false, error: /blocked/ })
  await checkEnd(t, host)
})

t.test('a restore outlives a fault of the database that keeps its transaction', async (t) => {
  const on = await seeded(t)
  let host: ObservedHost | undefined
  let over: Promise<void> | undefined
  const couch = () => nano(host?.proxy.url ?? on.url)
  host = await observe(t, {
    on,
    retry: undefined,
    webhooks: createCouchWebhookStore({ couch, database: on.names.system }),
    onEvent(event) {
      host?.events.push(event)
      if (event.type === 'restore_checked' && host) over = outage(host)
    }
  })
  const { id, finished: made } = await host.app.dbBackups.start()
  await made
  const components = on.couch.use(on.names.components)
  const { _rev } = await components.get(LOST)
  await components.destroy(LOST, _rev)
  const { tx_id: txId, finished } = await host.app.dbBackups.restore({ id })
  t.match(await finished, { databases: { components: { created: 1 } } })
  await over
  t.match(await host.webhooks.get(txId), { status: 'success', on_step: 5 })
  await checkEnd(t, host)
})
