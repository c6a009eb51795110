import { Readable } from 'node:stream'
import t, { type Test } from 'tap'
import type { FoundChange, RestoreOptions } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

const REFUSED = { statusCode: 400, code: 'DB_BACKUPS_INVALID_PARAMETER' }
const BACKED_UP = [
  { _id: 'ca1', type: 'ca', n: 1 },
  { _id: 'ca2', type: 'ca', n: 2 },
  { _id: 'peer1', type: 'peer', n: 1 },
  { _id: 'peer2', type: 'peer', n: 2 },
  { _id: 'plain' },
  { _id: '_design/x', views: {} }
]

/** Makes a backup, then changes every document of the backup and adds some. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on })
  const { couch, names } = on
  await couch.use(names.components).bulk({ docs: BACKED_UP })
  await couch.use(names.sessions).insert({ _id: 's' })
  const api = apiOf(host)
  const id = await api.backup()
  const sent = (await api.call('GET', `/${id}`)).rawPayload
  const db = couch.use<Record<string, unknown>>(names.components)
  const reset = async () => {
    const { rows } = await db.list()
    const revs = new Map(rows.map((row) => [row.id, row.value.rev]))
    const now = [
      { _id: 'ca1', type: 'ca', changed: true },
      { _id: 'ca2', type: 'peer', changed: true },
      { _id: 'peer1', type: 'peer', changed: true },
      { _id: 'newPeer', type: 'peer', n: 3 },
      { _id: 'newCa', type: 'ca', n: 3 }
    ]
    const gone = rows.filter((row) => !now.some(({ _id }) => _id === row.id))
    await db.bulk({
      docs: [
        ...now.map((doc) => ({ ...doc, ...(revs.has(doc._id) && { _rev: revs.get(doc._id) }) })),
        ...gone.map((row) => ({ _id: row.id, _rev: row.value.rev, _deleted: true }))
      ]
    })
  }
  return { on, host, id, sent, db, reset }
}

t.test('only the chosen documents are written and deleted, and a dry run tells which', async (t) => {
  const { on, host, id, sent, reset } = await setup(t)
  const { names } = on
  /** Options, and what changes: ids of created, changed and deleted documents. */
  const cases: [RestoreOptions, string[], string[], string[]][] = [
    [{ only: { components: { ids: ['ca1', 'peer2'] } } }, ['peer2'], ['ca1'], []],
    [{ only: { components: { types: ['peer'] } } }, ['peer2'], ['peer1'], []],
    [{ only: { components: { types: ['peer'] } }, exact: true }, ['peer2'], ['peer1'], ['newPeer']],
    [
      { only: { components: { selector: { n: { $gte: 2 } } } }, exact: true },
      ['peer2'],
      ['ca2'],
      ['newCa', 'newPeer']
    ],
    [
      { only: { components: { types: ['ca'], selector: { n: 1 }, ids: ['ca1', 'ca2', 'peer1'] } } },
      [],
      ['ca1'],
      []
    ],
    [
      {
        only: { components: { types: ['ca', 'peer'] } },
        exclude: { components: { types: ['ca'] } },
        exact: true
      },
      ['peer2'],
      ['peer1'],
      ['newPeer']
    ],
    [
      { exclude: { components: { selector: { type: { $exists: true } } } }, exact: true },
      ['_design/x', 'plain'],
      [],
      []
    ],
    [
      {
        exclude: { components: { types: ['peer'], ids: ['peer2', 'newPeer'] } },
        skip: { components: ['plain'] }
      },
      ['_design/x'],
      ['ca1', 'ca2', 'peer1'],
      []
    ],
    [
      { only: { components: {} }, exact: true },
      ['_design/x', 'peer2', 'plain'],
      ['ca1', 'ca2', 'peer1'],
      ['newCa', 'newPeer']
    ],
    [{ only: { sessions: {} } }, [], [], []]
  ]
  for (const source of ['id', 'body'] as const) {
    const from = () => (source === 'id' ? { id } : { body: Readable.from([sent]) })
    // An upload goes through the same plan.
    const some = source === 'id' ? cases : cases.filter((_case, i) => i % 3 === 1)
    for (const [options, created, changed, deleted] of some) {
      await reset()
      const what = `${source} ${JSON.stringify(options)}`
      const changes: FoundChange[] = []
      const onChange = async (change: FoundChange) => void changes.push(change)
      const dry = await (await host.app.dbBackups.restore(from(), { ...options, dryRun: true, onChange }))
        .finished
      const told = (change: string) =>
        changes
          .filter((one) => one.change === change)
          .map((one) => one.id)
          .sort()
      t.strictSame([told('created'), told('changed'), told('deleted')], [created, changed, deleted], what)
      t.strictSame(
        dry.changes,
        changes.map(({ fields: _fields, ...change }) => change),
        'the outcome names them'
      )
      for (const { change, fields } of changes) t.equal(fields !== undefined, change === 'changed')
      t.equal(dry.changes_count, changes.length)
      const before = await on.fetchAll(names.components)
      const real = await (await host.app.dbBackups.restore(from(), options)).finished
      t.strictSame(real.databases, dry.databases, `${what}: the same counts`)
      const after = await on.fetchAll(names.components)
      const differs = [...new Set([...before.keys(), ...after.keys()])]
        .filter((one) => before.get(one)?._rev !== after.get(one)?._rev)
        .sort()
      t.strictSame(differs, [...created, ...changed, ...deleted].sort(), `${what}: nothing else`)
    }
  }
})

t.test('databases that are not chosen are not touched, and unknown ids are told', async (t) => {
  const { host, id, on } = await setup(t)
  await on.couch.db.destroy(on.names.sessions)
  const only = { components: { ids: ['ca1', 'nobody'] } }
  const exclude = { components: { ids: ['ca1', 'none'], types: ['peer'] } }
  const { tx_id, finished } = await host.app.dbBackups.restore({ id }, { only, exclude })
  const outcome = await finished
  t.strictSame(outcome.only_unknown, { components: { count: 1, ids: ['nobody'] } })
  t.strictSame(outcome.skip_unknown, { components: { count: 1, ids: ['none'] } })
  t.strictSame(Object.keys(outcome.databases), ['components'])
  t.notOk('changes' in outcome)
  const tx = await host.webhooks.get(tx_id)
  t.match(tx, { only_unknown: outcome.only_unknown, skip_unknown: outcome.skip_unknown })
  t.ok(tx?.athena_messages.includes('sessions is not to be restored: it is left as it is'))
  const status = await on.couch.db.get(on.names.sessions).catch(({ statusCode }) => statusCode)
  t.equal(status, 404, 'is not created')
  await on.couch.db.create(on.names.sessions)
})

t.test('a choice that cannot be meant is refused before anything begins', async (t) => {
  const host = await buildHost(t)
  const restore = (options: unknown) =>
    host.app.dbBackups.restore({ id: '03_ibp_db_backup_1' }, options as RestoreOptions)
  const refused: [unknown, RegExp][] = [
    [{ only: {} }, /options\/only/],
    [{ only: { athena_components: {} } }, /options\/only\/athena_components/],
    [{ only: { components: { id: ['a'] } } }, /options\/only\/components\/id/],
    [{ exclude: { system: { types: 'a' } } }, /options\/exclude\/system\/types/],
    [
      { only: { system: { selector: { a: { $regex: 'x' } } } } },
      /options\/only\/system\/selector\/a\/\$regex/
    ],
    [{ exclude: { system: { selector: [] } } }, /options\/exclude\/system\/selector/],
    [{ onChange: 1, dryRun: true }, /options\/onChange/],
    [{ onChange() {} }, /options\/onChange: is only for a dry run/]
  ]
  for (const [options, message] of refused) await t.rejects(restore(options), { ...REFUSED, message })
})

t.test('changes are told in order, one at a time, bounded, and may fail the dry run', async (t) => {
  const host = await buildHost(t)
  const docs = Array.from({ length: 300 }, (_, i) => ({ _id: `${i}${i % 2 ? 'é'.repeat(400) : ''}` }))
  const body = () => Readable.from([JSON.stringify({ dbs: { components: { docs } } })])
  let running = 0
  let most = 0
  let told = 0
  const onChange = async () => {
    most = Math.max(most, ++running)
    told++
    await new Promise(setImmediate)
    running--
  }
  const { tx_id, finished } = await host.app.dbBackups.restore({ body: body() }, { dryRun: true, onChange })
  const { changes = [], changes_count } = await finished
  t.strictSame([told, most, changes_count], [300, 1, 300])
  t.ok(Buffer.byteLength(JSON.stringify(changes)) <= 32 * 1024)
  t.strictSame(
    changes.map(({ id }) => Number.parseInt(id, 10)),
    [...changes.keys()],
    'the first'
  )
  t.match(changes[1]!.id, /^1é+\.\.\. \(401 characters\)$/)
  t.match(await host.webhooks.get(tx_id), { changes, changes_count: 300, status: 'success' })

  const failing = await host.app.dbBackups.restore(
    { body: body() },
    {
      dryRun: true,
      onChange: (change) => {
        if (change.id === '2') throw new Error('full')
      }
    }
  )
  await t.rejects(failing.finished, { message: 'full' })
  t.match(await host.webhooks.get(failing.tx_id), { status: 'error' })
})
