import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { Repository } from '../lib/repository/repository.js'
import { Keyring } from '../lib/seal/keyring.js'
import type { BackupEvent, DatabaseSummary } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import {
  backUp,
  backUpRightly,
  type ChainDatabases,
  change,
  docs,
  documents,
  download,
  headerOf,
  remove,
  setupChain,
  setupPair
} from './helpers/chain.js'
import { clientOf } from './helpers/couch-client.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { encryptionOf, keyOf, rawText } from './helpers/sealed.js'
import { bytesOf } from './helpers/seed.js'

const KEY = 'athena_components'

const hostOf = (t: Parameters<typeof buildHost>[0], on: ChainDatabases, options: HostOptions = {}) =>
  buildHost(t, { on, databases: on.names, ...options })

async function setup(t: Parameters<typeof buildHost>[0], options: HostOptions = {}) {
  const on = await setupChain(t)
  await on.write(on.names.components, documents(40, 'planted'))
  await on.write(on.names.system, [{ _id: 'planted_setting', v: 1 }])
  return { on, host: await hostOf(t, on, options) }
}

t.test('sealed backups that share chunks are those of their moment, with older keys too', async (t) => {
  const { on, pair } = await setupPair(t, { encryption: encryptionOf('k1') })
  const first = await backUpRightly(t, on, pair, 'a full one')
  t.equal(first.sealed, 'k1')
  await change(on, on.names.components, docs('doc_00001', 'doc_00250', 'new'))
  const second = await backUpRightly(t, on, pair, 'an incremental one')
  t.equal(second.dbs[KEY]?.base, first.id)
  const rotated = await hostOf(t, on, { encryption: encryptionOf('k1', 'k2') })
  await change(on, on.names.components, docs('doc_00002', 'new 2'))
  const third = await backUpRightly(t, on, { ...pair, chain: rotated }, 'after a rotation')
  t.equal(third.sealed, 'k2')
  t.equal(third.dbs[KEY]?.base, second.id, 'an older key is no reason to read all')
  t.strictSame(Object.keys((await headerOf(on, third.id)).storage.seal!.keys), ['k1', 'k2'])
  for (const { id } of [first, second]) t.ok((await download(rotated, id)).length > 0)
  const before = await on.fetchAll(on.names.components)
  await change(on, on.names.components, docs('doc_00003'))
  await remove(on, on.names.components, 'new 2')
  t.match(await apiOf(rotated).restore(third.id), { status: 'success', failures: [] })
  const after = await on.fetchAll(on.names.components)
  t.strictSame(after.get('doc_00003')?.text, before.get('doc_00003')?.text)
  t.ok(after.has('new 2'))
})

t.test(
  'what is stored holds no key and no id of a document, nor do log, events and replies a key',
  async (t) => {
    const lines: string[] = []
    const stream = { write: (line: string) => lines.push(line) }
    const events: BackupEvent[] = []
    const { on, host } = await setup(t, {
      encryption: encryptionOf('k1'),
      server: { logger: { level: 'trace', stream } } as never,
      onEvent: (event) => {
        events.push(event)
      }
    })
    const data = bytesOf('large', 4_500_000).toString('base64')
    const large = { _id: 'planted_large', _attachments: { a: { content_type: 'image/png', data } } }
    await on.write(on.names.components, [large])
    const { id } = await backUp(host)
    t.match(
      (await headerOf(on, id)).storage.databases.components!.chunks.find(({ large }) => large),
      {
        sealed: 'k1'
      }
    )
    const stored = await rawText(on, on.names.backups)
    t.notMatch(stored, /planted/)
    const got = (await download(host, id)).toString('latin1')
    t.ok(got.includes('planted_large') && got.includes(data.slice(0, 1000)))
    const told = [stored, got, lines.join(''), JSON.stringify(events)]
    for (const form of ['hex', 'base64', 'latin1'] as const)
      for (const text of told) t.notOk(text.includes(keyOf('k1').toString(form)), form)
    await remove(on, on.names.components, 'planted_large')
    t.match(await apiOf(host).restore(id), { status: 'success', failures: [] })
    t.ok((await on.fetchAll(on.names.components)).get('planted_large'))
  }
)

t.test('what a header tells with ids of documents is sealed', async (t) => {
  const { on, host } = await setup(t, { encryption: encryptionOf('k1') })
  const client = clientOf(t, on.url)
  const keyring = new Keyring(encryptionOf('k1'), 1000)
  const repository = new Repository(new CouchDatabase(client, on.names.backups), { keyring })
  const origin = { instance: 'i', console: { system: on.names.system }, versions: {} }
  const failing = repository.runningBackup('03_ibp_db_backup_1592924104038')
  t.ok(await failing.begin(origin))
  await failing.fail('document "planted" cannot be read')
  const leaving = repository.runningBackup('03_ibp_db_backup_1592924104039')
  t.ok(await leaving.begin(origin))
  const unreadable = [{ id: 'planted_lost', reason: 'bad' }]
  const summary = { doc_count: 0, unreadable_count: 1, unreadable } as unknown as DatabaseSummary
  await leaving.progress({ [KEY]: summary }, 0)
  t.notMatch(await rawText(on, on.names.backups), /planted/, 'while it runs')
  t.match((await leaving.finish({ [KEY]: summary })).header.dbs, { [KEY]: { unreadable } })
  t.notMatch(await rawText(on, on.names.backups), /planted/)
  t.equal((await host.app.dbBackups.summary(failing.id)).error, 'document "planted" cannot be read')
  t.match((await host.app.dbBackups.summary(leaving.id)).dbs, { [KEY]: { unreadable } })
})

t.test('a base that is sealed otherwise is not trusted', async (t) => {
  const { on, host: plain } = await setup(t)
  await backUp(plain)
  const reasonOf = async (options: HostOptions) => {
    const host = await hostOf(t, on, options)
    return (await backUp(host)).dbs[KEY]?.full_reason
  }
  t.equal(await reasonOf({ encryption: encryptionOf('k1') }), 'sealed_otherwise', 'switched on')
  t.equal(await reasonOf({ encryption: encryptionOf('k1') }), undefined, 'as it was')
  t.equal(await reasonOf({ encryption: encryptionOf('k2') }), 'sealed_otherwise', 'the key is missing')
  const wrong = { current: 'k2', key: () => keyOf('another') }
  t.equal(await reasonOf({ encryption: wrong }), 'sealed_otherwise', 'the key is another')
  t.equal(await reasonOf({}), 'sealed_otherwise', 'switched off')
})

t.test('a missing, wrong or slow key is named, and nothing is read or written', async (t) => {
  const { on, host } = await setup(t, { encryption: encryptionOf('k1') })
  const { id } = await backUp(host)
  const cases: Record<string, { key: () => unknown; code: string; status: number }> = {
    'it throws': {
      key: () => {
        throw new Error(`a secret ${keyOf('k1').toString('hex')}`)
      },
      code: 'DB_BACKUPS_KEY_UNAVAILABLE',
      status: 503
    },
    'it gives nothing': { key: () => undefined, code: 'DB_BACKUPS_KEY_UNAVAILABLE', status: 503 },
    'it gives 31 bytes': { key: () => Buffer.alloc(31), code: 'DB_BACKUPS_KEY_UNAVAILABLE', status: 503 },
    'it is slow': {
      key: () => delay(5000, keyOf('k1'), { ref: false }),
      code: 'DB_BACKUPS_KEY_UNAVAILABLE',
      status: 503
    },
    'it is another one': { key: () => keyOf('k3'), code: 'DB_BACKUPS_WRONG_KEY', status: 500 }
  }
  for (const [what, { key, code, status }] of Object.entries(cases)) {
    const encryption = {
      current: 'k2',
      key: (asked: string) => (asked === 'k2' ? keyOf('k2') : (key() as Buffer))
    }
    const other = await hostOf(t, on, { encryption, timeouts: { key: 50 } })
    const api = apiOf(other)
    for (const reply of [await api.call('GET', `/${id}`), await api.call('PUT', `/${id}`)]) {
      t.match(JSON.parse(reply.body), { statusCode: status, code, message: /"k1"/ }, what)
      t.notMatch(reply.body, /secret|[0-9a-f]{20}/)
    }
    await t.rejects(other.app.dbBackups.summary(id), { code }, what)
    await t.resolves(other.app.dbBackups.list(), 'a list needs no key')
    await other.app.close()
  }
  const off = await hostOf(t, on)
  await t.rejects(off.app.dbBackups.get(id), { code: 'DB_BACKUPS_KEY_UNAVAILABLE', message: /encryption/ })
  await t.resolves(off.app.dbBackups.attach(id, 'note', 'text'), 'an append needs no key')
  t.match(
    await off.app.dbBackups.prune({ keep: { last: 1 }, dryRun: true }),
    { kept: [{ id }] },
    'nor does a pruning'
  )
  t.ok((await download(host, id)).length > 0, 'what was appended does not break the seal')
})

t.test('without its key no backup starts, and none is left behind', async (t) => {
  let key: Buffer | undefined = keyOf('k1')
  const { host } = await setup(t, { encryption: { current: 'k1', key: () => key as Buffer } })
  key = undefined
  await t.rejects(host.app.dbBackups.start(), { code: 'DB_BACKUPS_KEY_UNAVAILABLE' })
  t.strictSame(await host.app.dbBackups.list(), { ids: [] })
  key = keyOf('k1')
  t.equal((await backUp(host)).sealed, 'k1')
})

t.test('plain: "refuse" refuses what is not sealed', async (t) => {
  const { on, host: plain } = await setup(t)
  const { id } = await backUp(plain)
  const encryption = { ...encryptionOf('k1'), plain: 'refuse' as const }
  const host = await hostOf(t, on, { encryption })
  const code = 'DB_BACKUPS_NOT_SEALED'
  await t.rejects(host.app.dbBackups.get(id), { code })
  await t.rejects(host.app.dbBackups.restore({ id }), { code })
  t.match(await host.app.dbBackups.rekey(), { left: [{ id }], rekeyed: [] })
  const reads = await hostOf(t, on, { encryption: encryptionOf('k1') })
  t.match(await reads.app.dbBackups.rekey(), { left: [], rekeyed: [id] })
  t.equal((await host.app.dbBackups.summary(id)).sealed, 'k1')
  t.ok((await download(host, id)).length > 0)
})

t.test('the option is checked', async (t) => {
  const on = await setupChain(t)
  const wrong: [unknown, RegExp][] = [
    [{ current: '', key: () => keyOf('a') }, /encryption\.current/],
    [{ current: 'a' }, /encryption\.key/],
    [{ current: 'a', key: () => keyOf('a'), plain: 'no' }, /encryption\.plain/],
    [{ current: 'a', key: () => undefined }, /"a".*gave no 32 bytes/]
  ]
  for (const [encryption, message] of wrong)
    await t.rejects(hostOf(t, on, { encryption: encryption as never }), { message })
})
