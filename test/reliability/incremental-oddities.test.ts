import t, { type Test } from 'tap'
import type { StoredHeader } from '../../lib/repository/layout.js'
import {
  backUp,
  backUpRightly,
  buildPair,
  change,
  contentDifferences,
  docs,
  documents,
  listedChunks,
  remove,
  setupChain,
  textOf
} from '../helpers/chain.js'
import type { HostOptions } from '../helpers/host.js'

const KEY = 'athena_components'
const QUICK: HostOptions = { retry: { attempts: 2, wait: 1, longest: 1 } }

async function setup(t: Test, options: HostOptions = {}) {
  const on = await setupChain(t)
  await on.write(on.names.components, documents(300))
  return { on, pair: await buildPair(t, on, options) }
}

t.test('a document that can no longer be read is named, and no earlier version of it counts', async (t) => {
  const { on, pair } = await setup(t, QUICK)
  const { components } = on.names
  if (!on.raw) return t.comment('the raw server spoils documents')
  const attach = (_id: string, v: number) =>
    change(on, components, [
      { _id, v, _attachments: { a: { content_type: 'text/plain', data: 'eA==' } } } as { _id: string }
    ])
  await attach('doc_00001', 1)
  await attach('doc_00002', 1)
  await backUp(pair.chain)
  await attach('doc_00001', 2)
  const leaf = on.raw.store.get(components)!.docs.get('doc_00001')!.leaves[0]!
  leaf.attachments.get('a')!.encoded = true
  const second = await backUp(pair.chain)
  t.match(second.dbs[KEY]!.base, /^03_/)
  t.match(second.dbs[KEY], { unreadable_count: 1, unreadable: [{ id: 'doc_00001' }], doc_count: 299 })
  const full = await backUp(pair.full, { full: true })
  t.strictSame(await contentDifferences([pair.chain, second], [pair.full, full]), [])
  leaf.attachments.get('a')!.encoded = false
  await backUpRightly(t, on, pair, 'it can be read again')
})

t.test(
  'where the database of backups takes no whole chunks, the next backup still stores little',
  async (t) => {
    const { on, pair } = await setup(t)
    const { components, backups } = on.names
    if (!on.raw) return t.comment('the raw server limits attachments')
    await on.write(components, documents(600, 'large', 0, 20_000))
    // as a proxy does that takes bodies of 1 MiB
    on.raw.store.get(backups)!.maxAttachmentSize = 700_000
    const { dbs } = await backUp(pair.chain)
    const all = dbs[KEY]!.added_bytes!
    for (let round = 0; round < 2; round++) {
      await change(on, components, docs(`doc_0000${round}`))
      const { dbs } = await backUpRightly(t, on, pair, `round ${round}`)
      const { base, added_bytes, new_chunks } = dbs[KEY]!
      t.match(base, /^03_/)
      t.ok(added_bytes! < all / 4, `${added_bytes} of ${all} bytes, ${new_chunks} chunks`)
    }
  }
)

t.test('documents that the database of backups refuses are named, at any age', async (t) => {
  const { on, pair } = await setup(t, QUICK)
  const { components, backups } = on.names
  if (!on.raw) return t.comment('the raw server limits attachments')
  await backUp(pair.chain)
  for (const name of on.raw.store.keys())
    if (/backups|fulls/.test(name)) on.raw.store.get(name)!.maxAttachmentSize = 300_000
  t.ok(on.raw.store.get(backups)!.maxAttachmentSize)
  await change(on, components, [{ _id: 'doc_00003', text: textOf('refused', 500_000) } as { _id: string }])
  const second = await backUp(pair.chain)
  const full = await backUp(pair.full, { full: true })
  t.match(second.dbs[KEY]!.base, /^03_/)
  t.match(second.dbs[KEY], { unreadable_count: 1, unreadable: [{ id: 'doc_00003' }], doc_count: 299 })
  t.match(full.dbs[KEY], { unreadable_count: 1, doc_count: 299 })
  t.strictSame(await contentDifferences([pair.chain, second], [pair.full, full]), [])
  await change(on, components, docs('doc_00003'))
  await backUpRightly(t, on, pair, 'it is small again')
})

t.test('large backups of athena that come between two backups are in neither', async (t) => {
  const { on, pair } = await setup(t)
  const { components } = on.names
  await backUp(pair.chain)
  const old = [{ _id: 'x', text: 'x'.repeat(17 * 1024 * 1024) }]
  if (on.real) old[0]!.text = 'x'.repeat(1024 * 1024)
  const legacy = { _id: '03_ibp_db_backup_1', type: 'athena_backup', dbs: { athena_system: { docs: old } } }
  await on.write(components, [legacy])
  await change(on, components, docs('doc_00001', 'after'))
  await remove(on, components, 'doc_00002')
  const second = await backUpRightly(t, on, pair, 'with a backup among the documents')
  t.match(second.dbs[KEY]!.base, /^03_/)
  await change(on, components, docs('doc_00001'))
  await backUpRightly(t, on, pair, 'and after it')
  await remove(on, components, '03_ibp_db_backup_1')
  await backUpRightly(t, on, pair, 'without it')
})

t.test('chunks beyond those that a header holds are shared by manifests too', async (t) => {
  const { on, pair } = await setup(t)
  const { components, backups } = on.names
  if (!on.raw) return t.comment('the raw server limits attachments')
  on.raw.store.get(backups)!.maxAttachmentSize = 2500
  await on.write(components, documents(1200, 'apart', 0, 2400))
  const first = await backUp(pair.chain)
  t.ok((await listedChunks(on, backups, first.id, 'components')).length > 1200)
  for (let round = 0; round < 2; round++) {
    await change(on, components, documents(3, 'apart', round + 1, 2000) as { _id: string }[])
    await remove(on, components, `apart_0110${round}`)
    const { id, dbs } = await backUpRightly(t, on, pair, `round ${round}`)
    t.match(dbs[KEY]!.base, /^03_/)
    const header = (await on.couch.use(backups).get(id)) as unknown as StoredHeader
    t.comment(
      `${header.storage.databases.components!.manifests.length} manifests, ${dbs[KEY]!.new_chunks} new chunks`
    )
  }
})
