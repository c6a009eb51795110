import { Readable } from 'node:stream'
import t from 'tap'
import type { BackupEvent, RestoreOutcome } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { buildHost, type TestHost } from './helpers/host.js'

const ID = '00_settings_athena'
const skip = { system: [ID] }

async function insert(host: TestHost, doc: object): Promise<void> {
  await host.on.couch.use(host.on.names.system).bulk({ docs: [doc] })
}

async function edit(host: TestHost, id: string, change: object): Promise<void> {
  const system = host.on.couch.use(host.on.names.system)
  await system.insert({ ...(await system.get(id)), ...change } as object)
}

/** Backs up settings, then changes them. */
async function changed(t: Parameters<typeof buildHost>[0], options: Parameters<typeof buildHost>[1] = {}) {
  const events: BackupEvent[] = []
  const lines: { event?: string }[] = []
  const stream = { write: (line: string) => lines.push(JSON.parse(line)) }
  const host = await buildHost(t, {
    server: { logger: { level: 'info', stream } },
    onEvent: (event) => void events.push(event),
    ...options
  })
  await insert(host, { _id: ID, host_url: 'https://old.example.com' })
  await insert(host, { _id: 'other', a: 1 })
  const api = apiOf(host)
  const id = await api.backup()
  const settings = () => host.on.couch.use(host.on.names.system).get(ID) as Promise<{ host_url?: string }>
  const dryRun = async (more = {}) =>
    (await host.app.dbBackups.restore({ id }, { dryRun: true, ...more })).finished
  return { host, api, id, events, lines, settings, dryRun }
}

t.test('a dry run names the settings that a restore would change', async (t) => {
  const { host, id, dryRun, events, lines } = await changed(t)
  t.notOk('settings_documents' in (await dryRun()), 'equal settings are not reported as changed')
  await edit(host, ID, { host_url: 'https://new.example.com' })
  await edit(host, 'other', { a: 2 })
  const outcome = await dryRun()
  t.strictSame(outcome.settings_documents, [{ id: ID, change: 'changed' }])
  const tx = await host.webhooks.get(outcome.tx_id)
  t.match(tx, { status: 'success', dry_run: true, settings_documents: [{ id: ID, change: 'changed' }] })
  t.match(
    tx!.athena_messages,
    new Set([
      `the settings document "${ID}" of system would be changed: skip it, unless the backup is of this console`
    ])
  )
  const about = { document: ID, change: 'changed', dryRun: true, backup_id: id }
  t.match(
    events.find(({ type }) => type === 'restore_settings_document'),
    about
  )
  t.match(
    lines.find(({ event }) => event === 'restore_settings_document'),
    { ...about, level: 30 }
  )
  t.notOk('settings_documents' in (await dryRun({ skip })), 'skipped settings are not named')
})

t.test('a restore says so before it writes, and does not when it leaves them alone', async (t) => {
  const seen: unknown[] = []
  const { host, api, id, settings, lines } = await changed(t, {
    onEvent(event) {
      if (event.type === 'restore_settings_document') seen.push(settings())
    }
  })
  await edit(host, ID, { host_url: 'https://new.example.com' })
  const skipped = await api.restore(id, `?skip_system=["${ID}"]`)
  t.equal(skipped.status, 'success')
  t.notOk('settings_documents' in skipped)
  t.match(await settings(), { host_url: 'https://new.example.com' }, 'they are as they were')

  const tx = await api.restore(id)
  t.match(tx, { status: 'success', settings_documents: [{ id: ID, change: 'changed' }] })
  t.ok(tx.athena_messages.includes(`the settings document "${ID}" of system is being changed`))
  t.match(await Promise.all(seen), [{ host_url: 'https://new.example.com' }], 'reported before the write')
  t.match(await settings(), { host_url: 'https://old.example.com' })
  t.match(
    lines.find(({ event }) => event === 'restore_settings_document'),
    { level: 40, document: ID }
  )
})

t.test('of an upload as well, also where they are created', async (t) => {
  const { host, api, id, dryRun, settings } = await changed(t)
  const sent = await api.get(id)
  const system = host.on.couch.use(host.on.names.system)
  await system.destroy(ID, (await system.get(ID))._rev)
  t.strictSame((await dryRun()).settings_documents, [{ id: ID, change: 'created' }])
  t.match(await api.restore(sent), { status: 'success', settings_documents: [{ id: ID, change: 'created' }] })
  await edit(host, ID, { host_url: 'https://new.example.com' })
  t.match(await api.restore(sent), { settings_documents: [{ id: ID, change: 'changed' }] })
  t.match(await settings(), { host_url: 'https://old.example.com' })
  const twice = {
    dbs: {
      system: {
        docs: [
          { _id: ID, a: 1 },
          { _id: ID, a: 2 }
        ]
      }
    }
  }
  t.strictSame((await api.restore(twice)).settings_documents, [{ id: ID, change: 'changed' }], 'named once')
  const elsewhere = { dbs: { components: { docs: [{ _id: ID }] } } }
  t.notOk('settings_documents' in (await api.restore(elsewhere)), 'in another database it is any document')
})

t.test('an exact restore says so before it deletes them', async (t) => {
  const { host, settings } = await changed(t)

  const body = () => Readable.from(['{"dbs":{"system":{"docs":[{"_id":"other","a":1}]}}}'])
  const exact = async (options: object): Promise<RestoreOutcome> =>
    (await host.app.dbBackups.restore({ body: body() }, { exact: true, ...options })).finished
  const deleted = { settings_documents: [{ id: ID, change: 'deleted' }] }
  t.match(await exact({ dryRun: true }), deleted)
  t.ok(await settings())
  t.notOk('settings_documents' in (await exact({ skip })))
  t.match(await exact({}), deleted)
  await t.rejects(settings(), { message: /deleted|missing/ })
})

t.test('a restore that fails has said so', async (t) => {
  const { host, api, id } = await changed(t, {
    rebuildWhitelist() {
      throw new Error('no white list')
    }
  })
  await edit(host, ID, { host_url: 'https://new.example.com' })
  t.match(await api.restore(id), { status: 'error', settings_documents: [{ id: ID, change: 'changed' }] })
})

t.test('which documents they are is an option', async (t) => {
  const { host, api, id } = await changed(t, { settingsDocuments: ['other', 'none'] })
  for (const one of [ID, 'other']) await edit(host, one, { b: 1 })
  t.strictSame((await api.restore(id)).settings_documents, [{ id: 'other', change: 'changed' }])
  const none = await changed(t, { settingsDocuments: [] })
  await edit(none.host, ID, { b: 1 })
  t.notOk('settings_documents' in (await none.api.restore(none.id)))
  for (const settingsDocuments of ['a', [1], [''], Array(101).fill('a'), ['x'.repeat(513)]]) {
    await t.rejects(buildHost(t, { on: host.on, settingsDocuments: settingsDocuments as string[] }), {
      message: /option "settingsDocuments/
    })
  }
})
