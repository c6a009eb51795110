import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

/** Number of attachments whose entries exceed the memory for those of one document. */
const ATTACHMENTS = 4000
const NAME = 'n'.repeat(4200)
const DATA = Buffer.alloc(1200, 'x').toString('base64')

t.test('a document with more attachments than can be restored keeps no other from it', async (t) => {
  const on = await setupDatabases(t)
  const components = on.couch.use<Record<string, unknown>>(on.names.components)
  const _attachments = Object.fromEntries(
    Array.from({ length: ATTACHMENTS }, (_, i) => [`${NAME} ${i}`, { content_type: 'image/png', data: DATA }])
  )
  await components.insert({ _id: 'crowded', _attachments } as never)
  await components.bulk({ docs: [{ _id: 'before' }, { _id: 'zebra' }] })
  const host = await buildHost(t, { on })
  const api = apiOf(host)
  const id = await api.backup()
  const got = (await api.get(id)) as {
    dbs: Record<string, { docs: { _id: string; _attachments?: object }[] }>
  }
  const crowded = got.dbs.athena_components!.docs.find(({ _id }) => _id === 'crowded')
  t.equal(Object.keys(crowded?._attachments ?? {}).length, ATTACHMENTS, 'it is in the backup')
  for (const gone of ['before', 'zebra', 'crowded'])
    await components.destroy(gone, ((await components.get(gone)) as { _rev: string })._rev)

  const transaction = await api.restore(id)
  t.equal(transaction.status, 'error')
  t.match(transaction.failures, [{ database: 'components', id: 'crowded', error: 'not_restorable' }])
  t.match(transaction.databases?.components, { total: 3, created: 2, failed: 1 })
  t.match(await components.get('zebra'), { _id: 'zebra' })

  const skipped = await api.restore(id, '?skip_components=crowded')
  t.equal(skipped.status, 'success', 'it can be left out')

  await components.destroy('zebra', ((await components.get('zebra')) as { _rev: string })._rev)
  const uploaded = await api.restore(got)
  t.equal(uploaded.status, 'error', 'nor does it keep others from it in an upload of the backup')
  t.match(uploaded.failures, [{ database: 'components', id: 'crowded', error: 'not_restorable' }])
  t.match(uploaded.databases?.components, { total: 3, created: 1, failed: 1 })
  t.equal((await api.restore(got, '?skip_components=crowded')).status, 'success')
})

t.test('an upload with a document that takes too much memory is restored but for that', async (t) => {
  const api = apiOf(await buildHost(t))
  const text = 'x'.repeat(17 * 1024 * 1024)
  for (const long of [
    { _id: 'long', text },
    { text, _id: 'long' },
    { _id: 'long', [text]: 1 }
  ]) {
    const { status, failures, databases } = await api.restore(backupOf([{ _id: 'a' }, long]))
    t.equal(status, 'error')
    t.match(failures, [
      { database: 'components', id: 'long', error: 'not_restorable', reason: /16777216 bytes/ }
    ])
    t.match(databases?.components, { total: 2, failed: 1 })
  }
  for (const [long, message] of [
    [`{"${text}":1,"_id":"long"}`, /docs\[0\]: a document has no "_id"/],
    [`{"text":"${text}"}`, /docs\[0\]: a document has no "_id"/],
    [`{"_id":"a","text":"${text}","_id":"b"}`, /docs\[0\]: a document has two "_id" members/],
    [`{"_id":1,"text":"${text}"}`, /docs\[0\]: a document's "_id" is not a string/]
  ] as const) {
    const reply = await api.call('PUT', '', `{"dbs":{"components":{"docs":[${long}]}}}`)
    t.equal(reply.statusCode, 400)
    t.match(reply.json(), { message })
  }
})
