import t, { type Test } from 'tap'
import { chooseBase, lastComplete } from '../lib/backup/base-choice.js'
import { CouchDatabase, type DatabaseInfo } from '../lib/couch/database.js'
import { typesLeftOut } from '../lib/own-documents.js'
import { BaseDocuments } from '../lib/repository/base.js'
import { Repository } from '../lib/repository/repository.js'
import type { LogicalDatabase } from '../types/databases.js'
import { backUp, type ChainDatabases, change, docs, documents, setupPair } from './helpers/chain.js'
import { clientOf, startAnsweringCouch } from './helpers/couch-client.js'
import { setupDatabases } from './helpers/database.js'
import { fabricate, StoredBackupsOf } from './helpers/stored-backups.js'

/** Complete backups that are looked at for a base. */
const LOOKED_AT = 10
const CHAIN = 20

interface Asked {
  info?: Partial<DatabaseInfo>
  database?: LogicalDatabase
  source?: CouchDatabase
  excludeTypes?: string[]
  chain?: number
}

/** Returns a function that tells why a backup after the last one is a full one; `undefined` when it is none. */
async function choiceAfter(t: Test, on: ChainDatabases, id: string) {
  const client = clientOf(t, on.url)
  const last = (await new Repository(new CouchDatabase(client, on.names.backups)).load(id))!
  const database = (name: string) => new CouchDatabase(client, name)
  const whyFull = async (asked: Asked = {}) => {
    const { info, database: logical = 'components', excludeTypes = [], chain = CHAIN } = asked
    const source = asked.source ?? database(on.names[logical])
    const told: DatabaseInfo = await on.call('GET', on.names[logical])
    const found = await chooseBase({
      earlier: { candidate: last, full: false, chain, waste: 0.5 },
      database: logical,
      source,
      info: { ...told, ...info },
      excludeTypes: typesLeftOut(excludeTypes)
    })
    return found instanceof BaseDocuments ? undefined : found
  }
  return { whyFull, database, last }
}

/** What a server tells of a database with replicas. */
const REPLICATED = { cluster: { n: 3 } }

t.test('a base is trusted only where the server tells that the database is still the same', async (t) => {
  const { on, pair } = await setupPair(t, { count: 10 })
  const { id } = await backUp(pair.chain)
  const { whyFull, database, last } = await choiceAfter(t, on, id)
  const base = last.base('components')!
  const sequence = Number.parseInt(base.since, 10)
  const told: [string, Asked, string | undefined][] = [
    ['nothing else', {}, undefined],
    ['no time of creation', { info: { instance_start_time: undefined } }, 'not_told'],
    ['the time of CouchDB 2', { info: { instance_start_time: '0' } }, 'not_told'],
    ['no purges', { info: { purge_seq: undefined } }, 'not_told'],
    ['another database', { source: database(on.names.sessions) }, 'other_database'],
    ['another time', { info: { instance_start_time: '1' } }, 'created_again'],
    ['purges', { info: { purge_seq: '1-x' } }, 'purged'],
    ['no purges, by another text', { info: { purge_seq: '0-x' } }, undefined],
    ['no purges, by other replicas', { info: { ...REPLICATED, purge_seq: '0-x' } }, undefined],
    ['purges, by other replicas', { info: { ...REPLICATED, purge_seq: '1-x' } }, 'purged'],
    ['an earlier sequence', { info: { update_seq: `${sequence - 1}-x` } }, 'sequence_reset'],
    ['no sequence', { info: { update_seq: undefined } }, undefined],
    ['an earlier one by a replica', { info: { ...REPLICATED, update_seq: `${sequence - 1}-x` } }, undefined],
    ['the longest chain', { chain: 0 }, 'chain_too_long'],
    ['a type that is left out', { excludeTypes: ['cache'] }, 'excluded_types']
  ]
  for (const [what, asked, reason] of told) t.equal(await whyFull(asked), reason, what)
})

t.test(
  'purges that were there before compare by their number, and on replicas by all they tell',
  async (t) => {
    const { on, pair } = await setupPair(t, { count: 10 })
    const { rows } = await on.call('GET', `${on.names.components}/_all_docs?limit=1`)
    await on.call('POST', `${on.names.components}/_purge`, { [rows[0].id]: [rows[0].value.rev] })
    const { id } = await backUp(pair.chain)
    const { whyFull } = await choiceAfter(t, on, id)
    t.equal(await whyFull({ info: REPLICATED }), undefined, 'the same replicas')
    t.equal(await whyFull({ info: { purge_seq: '1-x' } }), undefined, 'one replica, by another text')
    t.equal(await whyFull({ info: { ...REPLICATED, purge_seq: '1-x' } }), 'purged', 'other replicas')
  }
)

t.test('how many changes are too many depends on the documents', async (t) => {
  const { on, pair } = await setupPair(t, { count: 10 })
  const { id } = await backUp(pair.chain)
  const { whyFull } = await choiceAfter(t, on, id)
  const withDocuments = (doc_count: number, doc_del_count?: number) =>
    whyFull({ info: { doc_count, doc_del_count } })
  await change(on, on.names.components, docs('one', 'two', 'three'))
  t.equal(await withDocuments(3), 'mostly_changed', 'all')
  t.equal(await withDocuments(4), undefined, 'all but one')
  t.equal(await withDocuments(2, 2), undefined, 'all but one, with deleted ones')
  t.equal(await withDocuments(2, 1), 'mostly_changed', 'all, with deleted ones')
  t.equal(await withDocuments(0), 'mostly_changed', 'a base with documents, and none any more')
  await on.write(on.names.components, documents(1500, 'more', 0, 10))
  t.equal(await withDocuments(3007), undefined, 'less than half')
  t.equal(await withDocuments(3005), 'mostly_changed', 'more than half')
})

t.test('a base that holds nothing is one, unless much has come since', async (t) => {
  const { on, pair } = await setupPair(t, { count: 0 })
  const { id } = await backUp(pair.chain)
  const { whyFull } = await choiceAfter(t, on, id)
  t.equal(await whyFull(), undefined)
  t.equal(
    await whyFull({ info: { doc_count: 1 } }),
    undefined,
    'with a document that the feed does not tell yet'
  )
  t.equal(await whyFull({ database: 'sessions', info: { doc_count: 0 } }), 'mostly_changed')
  await change(on, on.names.components, docs('one', 'two'))
  t.equal(await whyFull(), undefined, 'with its first documents')
  await on.write(on.names.components, documents(1500, 'more', 0, 10))
  t.equal(await whyFull(), 'mostly_changed')
})

t.test(
  'a server that does not take the sequence is read in full; one that fails is asked again',
  async (t) => {
    const { on, pair } = await setupPair(t, { count: 10 })
    const { id } = await backUp(pair.chain)
    const { whyFull } = await choiceAfter(t, on, id)
    let status = 400
    const { db } = await startAnsweringCouch(t, (_request, response) => {
      response.writeHead(status, { 'content-type': 'application/json' })
      response.end('{"error":"bad_request","reason":"Malformed sequence supplied in \'since\' parameter."}')
    })
    const source = new CouchDatabase(db.client, on.names.components)
    t.equal(await whyFull({ source }), 'not_told')
    status = 500
    await t.rejects(whyFull({ source }), { name: 'CouchError', status: 500 } as object as Error)
  }
)

t.test('a base of which the server has told too little is none', async (t) => {
  const { on, pair } = await setupPair(t, { count: 10 })
  if (!on.raw) return t.comment('only where the server can be made to tell less')
  const database = on.raw.store.get(on.names.components)!
  const { created } = database
  database.created = '0'
  const { id } = await backUp(pair.chain)
  database.created = created
  const { whyFull } = await choiceAfter(t, on, id)
  t.equal(await whyFull(), 'not_told')
  t.equal(await whyFull({ database: 'sessions' }), undefined)
})

t.test('among the last backups, the newest that can be a base is found', async (t) => {
  const on = await setupDatabases(t)
  const { system } = on.names
  const repository = new Repository(new CouchDatabase(clientOf(t, on.url), system))
  const found = async (except = '', excluded: string[] = []) => {
    const { last, base } = await lastComplete(repository, { owner: { system }, except, excluded })
    return [last?.id, base?.id]
  }
  t.strictSame(await found(), [undefined, undefined])
  const at = Date.now() - 1_000_000
  const [current] = await fabricate(on, [{ at }])
  await new StoredBackupsOf(on).change(current!, ({ dbs, storage }) => {
    Object.assign(storage, { layout: 3 })
    for (const summary of Object.values(dbs)) Object.assign(summary, { excluded_types: [] })
  })
  t.strictSame(await found(), [current, current])
  const [first] = await fabricate(on, [{ at: at + 1 }])
  t.strictSame(await found(), [first, current], 'an earlier layout')
  t.strictSame(await found(first), [current, current], 'without the backup that is made')
  await fabricate(on, [
    { at: at + 2, header: { error: 'failed' } },
    { at: at + 3, header: { in_progress: true } }
  ])
  await fabricate(on, [{ at: at + 4 }], 'another')
  t.strictSame(
    await found(),
    [first, current],
    'what has failed, runs or is of another console does not count'
  )
  const later = Array.from({ length: LOOKED_AT - 1 }, (_, i) => ({ at: at + 100 + i }))
  const ids = await fabricate(on, later.slice(1))
  t.strictSame(await found(), [ids.at(-1), current], 'the last that is looked at')
  const [newest] = await fabricate(on, [{ at: at + 500 }])
  t.strictSame(await found(), [newest, newest], 'one more is not looked at')
})
