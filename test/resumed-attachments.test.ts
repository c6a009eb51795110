import nano from 'nano'
import t from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { load, seedDocuments } from './helpers/seed.js'

const CHUNK = /backup_chunk_[0-9]+_components_[0-9]+\/documents/

for (const [name, document] of [
  ['a chunk of documents', undefined],
  [
    'the chunk of a large document',
    {
      _id: 'large',
      _attachments: { a: { content_type: 'image/png', data: Buffer.alloc(6_000_000, 7).toString('base64') } }
    }
  ]
] as const) {
  for (const fault of ['stall_mid', 'reset_mid', 'cut_mid', 'error_mid'] as const) {
    t.test(`${name} that ${fault} strikes is read on, within seconds`, async (t) => {
      const on = await setupDatabases(t)
      const components = on.couch.use(on.names.components)
      if (document) await components.insert(document as never)
      else await load(components, seedDocuments({ count: 20, size: 3000 }))
      const proxy = await startFaultProxy(t, on.url)
      const host = await buildHost(t, { on, couch: nano(proxy.url) })
      const api = apiOf(host)
      const id = await api.backup()
      const before = (await api.call('GET', `/${id}`)).body
      const rule = proxy.add({ path: CHUNK, method: 'GET', fault })
      const since = performance.now()
      const reply = await api.call('GET', `/${id}`)
      t.equal(rule.hits, 1)
      t.equal(reply.body === before, true, 'the same bytes')
      t.ok(performance.now() - since < 20_000, 'long before the time-out of 60 s')
    })
  }
}

for (const fault of ['stall_mid', 'reset_mid', 'cut_mid', 'error_mid', 'error_last', 'stall'] as const) {
  t.test(`an attachment of the source that ${fault} strikes is read on, within seconds`, async (t) => {
    const on = await setupDatabases(t)
    const data = Buffer.from(Array.from({ length: 5_000_000 }, (_, i) => i % 251)).toString('base64')
    const document = { _id: 'large', _attachments: { a: { content_type: 'image/png', data } } }
    await on.couch.use(on.names.components).insert(document as never)
    const proxy = await startFaultProxy(t, on.url)
    const api = apiOf(await buildHost(t, { on, couch: nano(proxy.url) }))
    const rule = proxy.add({ path: /_components\/large\/a/, method: 'GET', fault })
    const since = performance.now()
    const id = await api.backup()
    t.equal(rule.hits, 1)
    const { dbs } = (await api.call('GET', `/${id}`)).json()
    t.equal(dbs.athena_components.docs[0]._attachments.a.data === data, true, 'the same bytes')
    t.ok(performance.now() - since < 20_000, 'long before the time-out of 60 s')
  })
}

for (const fault of ['error_mid', 'error_last'] as const) {
  t.test(`a restore whose large document ${fault} strikes restores it`, async (t) => {
    const on = await setupDatabases(t)
    const components = on.couch.use(on.names.components)
    const data = Buffer.from(Array.from({ length: 5_000_000 }, (_, i) => (i * i) % 251)).toString('base64')
    await components.insert({
      _id: 'large',
      _attachments: { a: { content_type: 'image/png', data } }
    } as never)
    const proxy = await startFaultProxy(t, on.url)
    const api = apiOf(await buildHost(t, { on, couch: nano(proxy.url) }))
    const id = await api.backup()
    await components.destroy('large', (await components.get('large'))._rev)
    // the first read checks the backup
    const rule = proxy.add({ path: CHUNK, method: 'GET', fault, nth: 2 })
    const { status } = await api.restore(id)
    t.equal(rule.hits, 1)
    t.equal(status, 'success')
    const { _attachments } = await components.get('large', { attachments: true })
    t.equal(_attachments.a.data === data, true, 'the same bytes')
  })
}

t.test('a download that has begun waits for a database that restarts', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 20, size: 3000 }))
  const proxy = await startFaultProxy(t, on.url)
  const api = apiOf(await buildHost(t, { on, couch: nano(proxy.url) }))
  const id = await api.backup()
  const before = (await api.call('GET', `/${id}`)).body
  const rule = proxy.add({ path: CHUNK, method: 'GET', fault: 'refuse', refusedFor: 2500 })
  const reply = await api.call('GET', `/${id}`)
  t.equal(rule.hits, 1)
  t.equal(reply.body === before, true, 'the same bytes')
})
