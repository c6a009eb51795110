import nano from 'nano'
import t from 'tap'
import { backUp, change, docs, headerOf } from './helpers/chain.js'
import { checkSame, isThere, setupCopySites } from './helpers/copies.js'
import { buildHost } from './helpers/host.js'
import { encryptionOf } from './helpers/sealed.js'

t.test('a sealed backup is copied without its key, as long as no revision differs', async (t) => {
  const sites = await setupCopySites(t, { encryption: encryptionOf('k1') })
  const { host, from, to, stored } = sites
  const first = await backUp(host)
  await change(from, from.names.components, docs('doc_00001', 'added'))
  const second = await backUp(host)
  const keyless = await buildHost(t, { on: from, databases: from.names })
  const target = { to: { couch: nano(to.url), database: to.names.backups } }
  const copy = (id: string) => keyless.app.dbBackups.copy(id, target)
  t.match(await copy(first.id), { already: false })
  t.match(await copy(second.id), { already: false })
  t.match(await copy(second.id), { already: true })
  const there = await sites.there()
  for (const { id } of [first, second]) {
    await checkSame(t, host, there, id)
    const { storage } = await headerOf(from, id)
    t.strictSame((await stored.header(id)).storage, storage, 'with the same MAC')
  }
  t.match(await there.app.dbBackups.verify(second.id), { good: true })

  await there.app.dbBackups.remove(first.id)
  const third = await backUp(there, { full: true })
  await there.app.dbBackups.prune({ keep: { last: 1 } })
  t.strictSame(await stored.parts(), await stored.listed([third.id]))
  const before = await stored.parts()
  await t.rejects(copy(second.id), { code: 'DB_BACKUPS_KEY_UNAVAILABLE', statusCode: 503 })
  t.strictSame(await stored.parts(), before, 'nothing was written')
  t.notOk(await isThere(sites, second.id))
  const wrong = await buildHost(t, {
    on: from,
    databases: from.names,
    encryption: { current: 'k1', key: async () => Buffer.alloc(32) }
  })
  await t.rejects(wrong.app.dbBackups.copy(second.id, target), { code: 'DB_BACKUPS_WRONG_KEY' })
  t.match(await sites.copy(second.id), { already: false })
  await checkSame(t, host, there, second.id)
  t.match(await there.app.dbBackups.verify(second.id), { good: true }, 'its MAC is made anew')
  t.match(await sites.copy(second.id), { already: true })
})

t.test('a backup that was sealed anew since it was copied is another one', async (t) => {
  const sites = await setupCopySites(t, { encryption: encryptionOf('k1'), count: 5 })
  const { id } = await backUp(sites.host)
  await sites.copy(id)
  const { from, to } = sites
  const rotated = await buildHost(t, {
    on: from,
    databases: from.names,
    encryption: encryptionOf('k1', 'k2')
  })
  await rotated.app.dbBackups.rekey()
  await t.rejects(
    rotated.app.dbBackups.copy(id, { to: { couch: nano(to.url), database: to.names.backups } }),
    { code: 'DB_BACKUPS_COPY_CONFLICT', message: /sealed anew/ }
  )
})

t.test('a sealed header that was changed is not copied where the key is there', async (t) => {
  const sites = await setupCopySites(t, { encryption: encryptionOf('k1'), count: 5 })
  const { from, host } = sites
  const { id } = await backUp(host)
  const header = await headerOf(from, id)
  await from.couch.use(from.names.backups).insert({ ...header, note: 'changed' } as never)
  await t.rejects(sites.copy(id), { code: 'DB_BACKUPS_DAMAGED', part: 'header' })
})
