import { Readable } from 'node:stream'
import t from 'tap'
import type { RestoreOptions } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

const BACKUP = {
  dbs: {
    components: { docs: [{ _id: 'a' }, { _id: 'b' }, { _id: '_design/x' }] },
    system: {
      docs: [
        { _id: 'a' },
        { _id: 'athena_backup_lease', type: 'athena_backup_lease' },
        { _id: 'gone', _deleted: true }
      ]
    }
  }
}
const MESSAGE = /^\d+ ids to skip are of no document of/

t.test('ids to skip that no document has are counted and named', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const id = (await api.restore(BACKUP)) && (await api.backup())

  await t.test('in the transaction, for each database', async (t) => {
    const tx = await api.restore(id, '?skip_components=a,bb,_design/x&skip_system=["a","b"]')
    t.equal(tx.status, 'success')
    t.strictSame(tx.skip_unknown, {
      components: { count: 1, ids: ['bb'] },
      system: { count: 1, ids: ['b'] }
    })
    const told = tx.athena_messages.filter((message) => MESSAGE.test(message))
    t.strictSame(told, [
      '1 ids to skip are of no document of components: "bb"',
      '1 ids to skip are of no document of system: "b"'
    ])
    t.match(tx.databases, { components: { skipped: 2 }, system: { skipped: 1 } })
  })

  await t.test('but not when all are found', async (t) => {
    const tx = await api.restore(id, '?skip_components=b&skip_system=a')
    t.notOk('skip_unknown' in tx)
    t.notOk(tx.athena_messages.some((message) => MESSAGE.test(message)))
  })

  await t.test('documents that are not restored anyway are found', async (t) => {
    const tx = await api.restore(BACKUP, '?skip_system=athena_backup_lease,gone')
    t.notOk('skip_unknown' in tx)
  })

  await t.test('of a database that the backup does not hold, all are unknown', async (t) => {
    const upload = { dbs: { system: BACKUP.dbs.system } }
    const tx = await api.restore(upload, '?skip_components=a,b&skip_system=a')
    t.equal(tx.status, 'success')
    t.strictSame(tx.skip_unknown, { components: { count: 2, ids: ['a', 'b'] } })
  })

  await t.test('by a dry run', async (t) => {
    const skip = { components: ['a', 'x'], sessions: ['y'] }
    const { finished } = await host.app.dbBackups.restore({ id }, { dryRun: true, skip })
    t.strictSame((await finished).skip_unknown, {
      components: { count: 1, ids: ['x'] },
      sessions: { count: 1, ids: ['y'] }
    })
  })

  await t.test('many of them, and long ones, are named as far as there is room', async (t) => {
    const components = Array.from({ length: 500 }, (_, i) => `${i}${'x'.repeat(10_000)}`)
    const options: RestoreOptions = { dryRun: true, skip: { components: [...components, ...components] } }
    const { tx_id, finished } = await host.app.dbBackups.restore({ id }, options)
    const outcome = await finished
    t.equal(outcome.skip_unknown?.components?.count, 500)
    t.equal(outcome.skip_unknown?.components?.ids.length, 20)
    const tx = await host.webhooks.get(tx_id)
    t.ok(JSON.stringify(tx).length < 8 * 1024, `${JSON.stringify(tx).length} bytes`)
    t.ok(tx?.athena_messages.some((message) => /^500 ids to skip .*, and 495 more$/.test(message)))
  })
})

t.test('exact finds the ids of documents that only the database has', async (t) => {
  const host = await buildHost(t)
  const { couch, names } = host.on
  const body = () => Readable.from([JSON.stringify(BACKUP)])
  await couch.use(names.components).insert({ _id: 'own' })
  const skip = { components: ['own', 'none'] }
  const known = await (await host.app.dbBackups.restore({ body: body() }, { exact: true, skip })).finished
  t.strictSame(known.skip_unknown, { components: { count: 1, ids: ['none'] } })
  t.ok(await couch.use(names.components).get('own'), 'is left alone')
  const unknown = await (await host.app.dbBackups.restore({ body: body() }, { skip })).finished
  t.strictSame(unknown.skip_unknown, { components: { count: 2, ids: ['own', 'none'] } })
})
