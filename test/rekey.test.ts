import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { Repository } from '../lib/repository/repository.js'
import { Keyring } from '../lib/seal/keyring.js'
import type { BackupEvent, BackupSummary } from '../types/index.js'
import {
  backUp,
  backUpRightly,
  type ChainDatabases,
  change,
  contentOf,
  docs,
  download,
  headerOf,
  listedChunks,
  remove,
  setupPair
} from './helpers/chain.js'
import { clientOf } from './helpers/couch-client.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { encryptionOf, storedDocuments } from './helpers/sealed.js'

const hostOf = (t: Test, on: ChainDatabases, options: HostOptions = {}) =>
  buildHost(t, { on, databases: on.names, ...options })

/** Makes two backups of which the second shares chunks of the first. */
async function setup(t: Test, options: HostOptions = {}) {
  const { on, pair } = await setupPair(t, { count: 60, ...options })
  const first = await backUp(pair.chain)
  await change(on, on.names.components, docs('doc_00001', 'added'))
  const second = await backUp(pair.chain)
  const content = async (host = pair.chain) =>
    Promise.all([first, second].map(async ({ id }) => contentOf(await download(host, id))))
  return { on, pair, first, second, content }
}

/** Returns the ids of parts that no header lists. */
async function unlisted(on: ChainDatabases, backups: readonly BackupSummary[]): Promise<string[]> {
  const listed = new Set<string>()
  for (const backup of backups) {
    for (const stored of Object.values((await headerOf(on, backup.id)).storage.databases))
      for (const { id } of [...stored!.manifests, ...(stored!.index ?? [])]) listed.add(id)
    for (const database of ['components', 'sessions', 'system'] as const)
      for (const { id } of await listedChunks(on, on.names.backups, backup.id, database)) listed.add(id)
  }
  const documents = await storedDocuments(on, on.names.backups)
  const parts = documents.filter(({ type }) => /_(chunk|manifest)$/.test(type ?? ''))
  return parts.map(({ _id }) => _id).filter((id) => !listed.has(id))
}

t.test('rekey seals what is not, then with another key, and backups go on from there', async (t) => {
  const { on, pair, first, second, content } = await setup(t)
  const before = await content()
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => {
    events.push(event)
  }
  const sealing = await hostOf(t, on, { encryption: encryptionOf('k1'), onEvent })
  const outcome = await sealing.app.dbBackups.rekey()
  const ids = [first.id, second.id]
  t.match(outcome, { key: 'k1', rekeyed: ids, unchanged: 0, left: [] })
  t.ok(outcome.chunks > 0 && outcome.bytes > 0 && outcome.parts >= outcome.chunks && outcome.freed_bytes > 0)
  t.strictSame(
    events.map(({ type }) => type).filter((type) => type.startsWith('rekey')),
    ['rekey_started', 'rekey_backup_finished', 'rekey_backup_finished', 'rekey_finished']
  )
  t.strictSame(await content(sealing), before)
  t.strictSame(await unlisted(on, [first, second]), [], 'what it replaces is gone')
  const [shared] = await listedChunks(on, on.names.backups, first.id, 'components')
  const also = await listedChunks(on, on.names.backups, second.id, 'components')
  t.ok(
    also.some(({ id }) => id === shared!.id),
    'a shared chunk is sealed once'
  )
  await t.rejects(download(pair.chain, first.id), { code: 'DB_BACKUPS_KEY_UNAVAILABLE' })

  const rotated = await hostOf(t, on, { encryption: encryptionOf('k1', 'k2') })
  t.match(await rotated.app.dbBackups.rekey(), { key: 'k2', rekeyed: ids, chunks: outcome.chunks })
  t.match(await rotated.app.dbBackups.rekey(), { rekeyed: [], unchanged: 2, chunks: 0, parts: 0 })
  const newest = await hostOf(t, on, { encryption: encryptionOf('k2') })
  t.strictSame(await content(newest), before, 'the first key is not needed any more')

  await change(on, on.names.components, docs('doc_00001', 'doc_00002', 'added later'))
  await remove(on, on.names.components, 'added')
  const third = await backUpRightly(t, on, { ...pair, chain: newest }, 'after a rekeying')
  t.equal(third.dbs.athena_components?.base, second.id, 'copies are found in chunks that were sealed anew')
})

t.test('a rekeying that ends anywhere leaves every backup whole, and the next goes on', async (t) => {
  const { on, first, second, content } = await setup(t, { encryption: encryptionOf('k1') })
  const before = await content()
  const keyring = new Keyring(encryptionOf('k1', 'k2'), 1000)
  const host = await hostOf(t, on, { encryption: encryptionOf('k1', 'k2') })
  let total = 0
  let rounds = 0
  for (let writes = 0; ; writes += 2 + rounds) {
    let left = writes
    const beforeWrite = () => {
      if (left-- <= 0) throw new Error('crashed')
    }
    const client = clientOf(t, on.url)
    const repository = new Repository(new CouchDatabase(client, on.names.backups), { keyring })
    const rekeying = repository.on(client.with({ beforeWrite } as never)).rekey({
      owner: { system: on.names.system },
      onBackup({ chunks }) {
        total += chunks
      }
    })
    const ended = await rekeying.then(
      () => true,
      (error) => {
        t.equal(error.message, 'crashed')
        return false
      }
    )
    rounds++
    if (rounds % 2 === 0 || ended) t.strictSame(await content(host), before, `after ${writes} writes`)
    if (ended) break
  }
  t.ok(rounds > 3, `${rounds} rounds`)
  t.strictSame(await unlisted(on, [first, second]), [])
  const all = new Set<string>()
  for (const backup of [first, second]) {
    const { storage } = await headerOf(on, backup.id)
    t.strictSame(Object.keys(storage.seal!.keys), ['k2'])
    for (const stored of Object.values(storage.databases))
      for (const { id } of [...stored!.chunks, ...(stored!.index ?? [])]) all.add(id)
  }
  t.equal(total, all.size, 'a chunk that is shared was not sealed twice')
})

t.test('a backup that cannot be sealed anew is left, and does not keep the others', async (t) => {
  const { on, first, second } = await setup(t, { encryption: encryptionOf('k1') })
  const other = await hostOf(t, on, { encryption: encryptionOf('k1') })
  const third = await backUp(other, { full: true })
  const listed = await listedChunks(on, on.names.backups, third.id, 'components')
  const backups = on.couch.use(on.names.backups)
  const { _rev } = await backups.get(listed[0]!.id)
  await backups.destroy(listed[0]!.id, _rev)
  const host = await hostOf(t, on, { encryption: encryptionOf('k1', 'k2') })
  t.match(await host.app.dbBackups.rekey(), {
    rekeyed: [first.id, second.id],
    left: [{ id: third.id, reason: /is missing/ }]
  })
})

t.test('where a header cannot be read whole, the backup is named for which nothing is deleted', async (t) => {
  const { on, pair, first, second } = await setup(t)
  const host = await hostOf(t, on, { encryption: encryptionOf('k1') })
  const third = await backUp(pair.chain, { full: true })
  const backups = on.couch.use<{ storage: object }>(on.names.backups)
  const header = await backups.get(third.id)
  for (const [storage, reason] of [
    [{ ...header.storage, layout: 99 }, /was made by a later version/],
    [{ ...header.storage, databases: [] }, /does not list its chunks/]
  ] as const) {
    const { _rev } = await backups.get(third.id)
    await backups.insert({ ...header, storage, _rev })
    const { left, parts } = await host.app.dbBackups.rekey()
    t.match(left.at(-1), { id: third.id, reason: /^nothing was deleted: / })
    t.match(left.at(-1)?.reason, reason)
    t.equal(parts, 0)
  }
  await backups.insert({ ...header, _rev: (await backups.get(third.id))._rev })
  const { rekeyed, unchanged, left, parts } = await host.app.dbBackups.rekey()
  t.strictSame(
    { rekeyed, unchanged, left },
    { rekeyed: [third.id], unchanged: [first, second].length, left: [] }
  )
  t.ok(parts > 0, 'then they are')
})

t.test('a backup that is sealed anew while it is read was changed, and is not damaged', async (t) => {
  const { on, pair, first } = await setup(t)
  const { body } = await pair.chain.app.dbBackups.get(first.id)
  await (await hostOf(t, on, { encryption: encryptionOf('k1') })).app.dbBackups.rekey()
  await t.rejects(buffer(body), { code: 'DB_BACKUPS_CHANGED', statusCode: 409 })
})

t.test('rekey needs the option, and its turn', async (t) => {
  const { on, pair } = await setup(t)
  await t.rejects(pair.chain.app.dbBackups.rekey(), {
    code: 'DB_BACKUPS_INVALID_PARAMETER',
    message: /encryption/
  })
  const host = await hostOf(t, on, { encryption: encryptionOf('k1') })
  const { id, finished } = await pair.chain.app.dbBackups.start({ full: true })
  await t.rejects(host.app.dbBackups.rekey(), {
    code: 'DB_BACKUPS_IN_PROGRESS',
    message: 'backup_in_progress',
    id
  })
  await finished
})
