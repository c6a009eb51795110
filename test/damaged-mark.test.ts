import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { isGoodBackup } from '../lib/own-documents.js'
import { backUp, headerOf, listedChunks, setupPair } from './helpers/chain.js'

t.test(
  'a record of damage alone keeps a database from being based on, until a verification finds it whole',
  async (t) => {
    const { on, pair } = await setupPair(t, { count: 20 })
    const { verify, summary } = pair.chain.app.dbBackups
    const mark = async (id: string, damaged: object) => {
      const header = await headerOf(on, id)
      await on.couch.use(on.names.backups).insert({ ...header, damaged } as never)
    }
    const record = { found: 1, databases: { components: { parts: ['a'], count: 1 } } }
    const first = await backUp(pair.chain)
    await mark(first.id, record)
    t.strictSame((await summary(first.id)).damaged, record)
    const second = await backUp(pair.chain)
    t.equal(second.dbs.athena_components!.full_reason, 'damaged_base')
    t.equal(second.dbs.athena_system!.base, first.id)

    await mark(second.id, record)
    t.equal((await verify(second.id, { depth: 'structure' })).good, true)
    t.strictSame((await summary(second.id)).damaged, record, 'no byte was read')
    t.equal((await verify(second.id)).good, true)
    t.equal((await summary(second.id)).damaged, undefined)
    t.equal((await backUp(pair.chain)).dbs.athena_components!.base, second.id)
  }
)

t.test('where only an index is damaged, every backup that shares it says so, and stays good', async (t) => {
  const { on, pair } = await setupPair(t, { count: 20 })
  const first = await backUp(pair.chain)
  const second = await backUp(pair.chain)
  const indexOf = async (id: string) => (await headerOf(on, id)).storage.databases.components!.index!
  const [index] = await indexOf(first.id)
  t.match(await indexOf(second.id), [{ id: index!.id }], 'both list it')
  const db = on.couch.use(on.names.backups)
  const { _rev } = await db.get(index!.id)
  await db.destroy(index!.id, _rev)
  t.match(await pair.chain.app.dbBackups.verify(first.id), { good: false, problems: [{ part: 'index' }] })
  for (const { id } of [first, second]) {
    const summary = await pair.chain.app.dbBackups.summary(id)
    t.match(summary.damaged, {
      databases: { components: { parts: [index!.id], count: 1, only_index: true } }
    })
    t.ok(isGoodBackup(summary), 'its documents are whole')
  }
})

t.test('a reader is told of damage also where a verification notes it meanwhile', async (t) => {
  const { on, pair } = await setupPair(t, { count: 20 })
  const { id } = await backUp(pair.chain)
  const [chunk] = await listedChunks(on, on.names.backups, id, 'components')
  const { body } = await pair.chain.app.dbBackups.get(id)
  const db = on.couch.use(on.names.backups)
  const { _rev } = await db.get(chunk!.id)
  await db.destroy(chunk!.id, _rev)
  t.match(await pair.chain.app.dbBackups.verify(id), { good: false })
  await t.rejects(buffer(body), { code: 'DB_BACKUPS_DAMAGED', id: chunk!.id })
})
