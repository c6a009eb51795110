import { Readable } from 'node:stream'
import t, { type Test } from 'tap'
import { backupOf } from './helpers/api.js'
import { LEASE } from './helpers/database.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'
import {
  failing,
  SOON,
  startKeeper,
  startTwoServerConsole,
  type TwoServerConsole
} from './helpers/two-servers.js'

const BACKUPS = /the CouchDB of the backups/
const DATABASES = /the CouchDB of the databases/

/** Starts a console with 20 documents. */
async function setup(t: Test, options = {}) {
  const keeper = await startKeeper(t)
  const console = await startTwoServerConsole(t, keeper, options)
  await load(console.use(console.on.names.components) as never, seedDocuments({ count: 20 }))
  return { keeper, ...console }
}

const isFailed = async ({ host }: Pick<TwoServerConsole, 'host'>, id: string) => {
  const { in_progress: running, error } = await host.app.dbBackups.summary(id)
  return running ? undefined : error
}

for (const fault of ['refuse', 'status_500', 'stall'] as const) {
  t.test(`the server of the backups fails (${fault}): it is named, and needless for uploads`, async (t) => {
    const { host, api, backups, events, on, use } = await setup(t)
    const id = await api.backup()
    const mend = failing(backups, fault)
    for (const [method, path, payload] of [
      ['POST', ''],
      ['GET', ''],
      ['GET', `/${id}`],
      ['PUT', `/${id}`],
      ['PUT', `/${id}/attachments/a`, { attachment: 'x' }]
    ] as const) {
      const reply = await api.call(method, path, payload)
      t.match(reply, { statusCode: 503 }, `${method} ${path}`)
      t.match(reply.json().message, BACKUPS)
    }
    const body = Readable.from([JSON.stringify(backupOf([{ _id: 'a' }]))])
    const withBackup = host.app.dbBackups.restore({ body }, { safety: true })
    await t.rejects(withBackup, { statusCode: 503, message: BACKUPS })
    t.match(await api.restore(backupOf([{ _id: 'sent' }])), { status: 'success' })
    t.match(await use(on.names.components).get('sent'), { _id: 'sent' })
    const told = await poll(
      'the event',
      async () => events.find(({ type }) => type === 'check_failed'),
      20_000
    )
    t.match((told as { error: Error }).error.message, BACKUPS)
    await mend()
    t.match(await api.backup(), /^03_ibp/)
  })

  t.test(
    `the server of the databases fails (${fault}): it is named, and needless for downloads`,
    async (t) => {
      const { api, databases } = await setup(t)
      const id = await api.backup()
      const mend = failing(databases, fault)
      for (const [method, path, payload] of [
        ['POST', ''],
        ['PUT', `/${id}`],
        ['PUT', '', backupOf([{ _id: 'a' }])]
      ] as const) {
        const reply = await api.call(method, path, payload)
        t.match(reply, { statusCode: 503 }, `${method} ${path}`)
        t.match(reply.json().message, DATABASES)
      }
      t.match((await api.call('GET')).json(), { ids: [id] })
      t.equal((await api.get(id)).dbs.athena_components!.docs.length, 20)
      t.equal((await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x' })).statusCode, 200)
      await mend()
      t.match(await api.backup(), /^03_ibp/)
    }
  )
}

t.test('a console starts while neither server answers, and works when they do', async (t) => {
  const keeper = await startKeeper(t)
  const { api, databases, backups } = await startTwoServerConsole(t, keeper)
  const mend = [failing(databases, 'refuse'), failing(backups, 'refuse')]
  t.equal((await api.call('POST')).statusCode, 503)
  for (const one of mend) await one()
  t.match(await api.backup(), /^03_ibp/)
})

t.test('a backup whose sources die fails, and that is recorded while they are away', async (t) => {
  const { host, databases, keeper } = await setup(t)
  const release = databases.hold({ path: /_changes/ })
  const { id, finished } = await host.app.dbBackups.start()
  const failed = t.rejects(finished, { message: DATABASES })
  failing(databases, 'refuse')
  release()
  await failed
  t.match(await isFailed({ host }, id), DATABASES)
  t.notOk('operation' in (await keeper.documents.get(LEASE)), 'the lease of the backups is given back')
})

t.test('a backup whose repository dies fails, and that is recorded when it is back', async (t) => {
  const { host, api, databases, backups, events, keeper, use, on } = await setup(t)
  const release = databases.hold({ path: /_changes/ })
  const { id, finished } = await host.app.dbBackups.start()
  const failed = t.rejects(finished, { message: BACKUPS })
  const mend = failing(backups, 'refuse')
  release()
  await failed
  t.match(
    events.find(({ type }) => type === 'failure_not_recorded'),
    { id, error: { message: BACKUPS } }
  )
  t.notOk('operation' in (await use(on.names.system).get(LEASE)), 'the lease of the sources is given back')
  t.match(await api.restore(backupOf([{ _id: 'sent' }])), { status: 'success' })
  await mend()
  t.match(await poll('the mark', () => isFailed({ host }, id), 20_000), /./)
  await poll('the lease', async () => ('operation' in (await keeper.documents.get(LEASE)) ? undefined : true))
  t.match(await api.backup(), /^03_ibp/)
})

t.test(
  'the lease of the backups is given back while the other server does not take its own back',
  async (t) => {
    const patient = { timeouts: { ...SOON.timeouts, lease: 60_000, control: 20_000, idle: 20_000 } }
    const { host, api, databases, keeper, use, on } = await setup(t, patient)
    const release = databases.hold({ method: 'PUT', path: new RegExp(LEASE), body: /^(?!.*"operation")/ })
    const { finished } = await host.app.dbBackups.start()
    const heldAt = async (documents: typeof keeper.documents) => 'operation' in (await documents.get(LEASE))
    await poll('the lease', async () => ((await heldAt(keeper.documents)) ? undefined : true))
    t.ok(await heldAt(use(on.names.system)))
    release()
    t.match(await finished, { in_progress: false })
    t.notOk(await heldAt(use(on.names.system)))
    t.match(await api.backup(), /^03_ibp/)
  }
)

t.test('a restore whose repository dies in the middle ends as an error with counts', async (t) => {
  const { host, api, databases, backups, use, on } = await setup(t)
  const id = await api.backup()
  const { components } = on.names
  for (const { id: _id, value } of (await use(components).list()).rows)
    await use(components).destroy(_id, value.rev)
  const release = databases.hold({ path: /_bulk_docs/ })
  const { tx_id: txId, finished } = await host.app.dbBackups.restore({ id }, { clientWebhookUrl: undefined })
  const failed = t.rejects(finished, { message: BACKUPS })
  await poll('the first write', async () => databases.seen.find(({ path }) => /_bulk_docs/.test(path)))
  const mend = failing(backups, 'refuse')
  // Until the lease is lost, or a further chunk is asked for.
  setTimeout(release, SOON.timeouts.lease)
  await failed
  const tx = await host.webhooks.get(txId)
  t.match(tx, { status: 'error', databases: { components: {} } })
  t.match(tx?.athena_messages.at(-1), BACKUPS)
  t.notOk('operation' in (await use(on.names.system).get(LEASE)))
  await mend()
  const again = await poll(
    'the second restore',
    async () => {
      const reply = await api.call('PUT', `/${id}`)
      return reply.statusCode === 202 ? reply.json().url : undefined
    },
    20_000
  )
  t.match(await host.waitForRestore(again), { status: 'success' })
})

t.test('a backup made before an upload is restored lies on the server of the backups', async (t) => {
  const { host, keeper } = await setup(t)
  const body = Readable.from([JSON.stringify(backupOf([{ _id: 'sent' }]))])
  const { finished } = await host.app.dbBackups.restore({ body }, { safety: true })
  const { safety_backup: id = '' } = await finished
  t.match(await keeper.documents.get(id), { in_progress: false, storage: { before_restore: /./ } })
})
