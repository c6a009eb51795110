import t from 'tap'
import { backUp, headerOf, setupPair } from './helpers/chain.js'

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
