import t, { type Test } from 'tap'
import { createMemoryWebhookStore } from '../lib/index.js'
import type { DbBackupsOptions, WebhookStore } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { load, seedDocuments } from './helpers/seed.js'

const SHORT = 100
const never = () => new Promise<never>(() => {})

async function hostWith(t: Test, options: Partial<DbBackupsOptions>) {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 10 }))
  const host = await buildHost(t, { on, ...options, timeouts: { webhooks: SHORT, versions: SHORT } })
  return { host, api: apiOf(host) }
}

/** Creates a store whose `method` does not answer its first call. */
function storeThatHangsOnce(method: keyof WebhookStore): WebhookStore {
  const store = createMemoryWebhookStore()
  let hung = false
  const answering = store[method] as (...args: unknown[]) => Promise<never>
  return Object.assign(Object.create(store) as WebhookStore, {
    [method]: (...args: unknown[]) => {
      if (hung) return answering.apply(store, args)
      hung = true
      return never()
    }
  })
}

const late = (name: string) => ({
  statusCode: 503,
  code: 'DB_BACKUPS_HOST_TIMEOUT',
  error: 'Service Unavailable',
  message: `${name} did not answer within ${SHORT} ms`
})

t.test('versions that do not come refuse a backup, and keep no other from starting', async (t) => {
  const answers = [never, () => ({ athena: '1.0.0' })]
  const { api } = await hostWith(t, { versions: () => answers.shift()!() })
  const reply = await api.call('POST')
  t.equal(reply.statusCode, 503)
  t.strictSame(reply.json(), late('versions'))
  t.match(await api.get(await api.backup()), { ibp_versions: { athena: '1.0.0' } })
})

t.test(
  'a store that does not take a transaction refuses the restore, and keeps no other from starting',
  async (t) => {
    const { api } = await hostWith(t, { webhooks: storeThatHangsOnce('create') })
    const id = await api.backup()
    const reply = await api.call('PUT', `/${id}`)
    t.equal(reply.statusCode, 503)
    t.strictSame(reply.json(), late('webhooks.create'))
    t.equal((await api.restore(id)).status, 'success')
  }
)

t.test('a store that does not take an update ends the restore as failed', async (t) => {
  const { api } = await hostWith(t, { webhooks: storeThatHangsOnce('update') })
  const id = await api.backup()
  const transaction = await api.restore(id)
  t.equal(transaction.status, 'error')
  t.equal(transaction.athena_messages.at(-1), late('webhooks.update').message)
  t.equal((await api.restore(id)).status, 'success')
})
