import fc from 'fast-check'
import t from 'tap'
import type { BackupSummary } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import {
  backUp,
  backUpRightly,
  change,
  contentOf,
  docs,
  documents,
  download,
  headerOf,
  listedChunks,
  remove,
  setupPair,
  truthOf
} from './helpers/chain.js'
import { DATABASES } from './helpers/database.js'
import { difference } from './helpers/fingerprints.js'
import { buildHost } from './helpers/host.js'
import { startPagingProxy } from './helpers/relay.js'
import { repeatedBytes } from './helpers/seed.js'
import { cases, extent } from './helpers/settings.js'

const KEY = 'athena_components'

t.test('a backup after few changes takes what has not changed from the one before', async (t) => {
  const { on, pair } = await setupPair(t)
  const first = await backUp(pair.chain)
  t.equal(first.base, undefined)
  t.equal(first.chain_length, 0)
  t.equal(first.dbs[KEY]!.base, undefined)
  t.equal(first.dbs[KEY]!.full_reason, 'no_base')
  t.ok(first.dbs[KEY]!.new_chunks! > 0)
  t.equal(first.dbs[KEY]!.reused_chunks, 0)

  await change(on, on.names.components, docs('doc_00003', 'doc_00299', 'new'))
  await remove(on, on.names.components, 'doc_00010')
  const second = await backUpRightly(t, on, pair, 'three written, one deleted')
  t.equal(second.base, first.id)
  t.equal(second.chain_length, 1)
  for (const [key, { base, full_reason, doc_count }] of Object.entries(second.dbs)) {
    t.equal(base, first.id, key)
    t.equal(full_reason, undefined)
    t.equal(doc_count, key === KEY ? 300 : 30)
  }
  const components = second.dbs[KEY]!
  t.ok(components.new_chunks! >= 1, `${components.new_chunks} new`)
  t.ok(components.reused_chunks! >= 1, `${components.reused_chunks} reused`)
  t.ok(
    components.added_bytes! > 0 && components.added_bytes! < first.dbs[KEY]!.added_bytes! / 5,
    `${components.added_bytes} after ${first.dbs[KEY]!.added_bytes} bytes`
  )
  const sum = Object.values(second.dbs).reduce((all, { added_bytes }) => all + added_bytes!, 0)
  t.equal(second.added_bytes, sum)
  t.match(await headerOf(on, second.id), { base: first.id, chain_length: 1, storage: { layout: 3 } })

  const third = await backUpRightly(t, on, pair, 'nothing changed')
  t.equal(third.base, second.id)
  t.equal(third.chain_length, 2)
  for (const [key, { new_chunks, base }] of Object.entries(third.dbs)) {
    t.equal(base, second.id, key)
    t.equal(new_chunks, 0, key)
  }
  const told = await pair.chain.app.dbBackups.summary(third.id)
  t.match(told, { base: second.id, chain_length: 2, added_bytes: third.added_bytes })
})

t.test('a client of the HTTP API gets incremental backups as well', async (t) => {
  const { on, pair } = await setupPair(t)
  const api = apiOf(pair.chain)
  const first = await api.backup()
  await change(on, on.names.components, docs('doc_00003'))
  const second = await api.backup()
  t.match(await pair.chain.app.dbBackups.summary(second), { base: first, chain_length: 1 })
  t.match(await api.get(second), { base: first, dbs: { [KEY]: { base: first } } })
})

t.test('full backups are made where they are asked for, and later ones build on them', async (t) => {
  const { on, pair } = await setupPair(t)
  await backUp(pair.chain)
  await change(on, on.names.components, docs('doc_00003'))
  const full = await backUp(pair.chain, { full: true })
  t.equal(full.base, undefined)
  t.equal(full.chain_length, 0)
  for (const { base, full_reason, reused_chunks } of Object.values(full.dbs)) {
    t.equal(base, undefined)
    t.equal(full_reason, 'asked_for')
    t.equal(reused_chunks, 0)
  }
  await change(on, on.names.components, docs('doc_00004'))
  t.match(await backUpRightly(t, on, pair, 'after a full one'), { base: full.id, chain_length: 1 })
})

t.test('what is created, changed, deleted, recreated and kept out comes and goes with it', async (t) => {
  const { on, pair } = await setupPair(t, { count: 60 })
  const { components } = on.names
  await backUp(pair.chain)
  const steps: Record<string, () => Promise<unknown>> = {
    'a document changes': () => change(on, components, docs('doc_00001')),
    'it changes again': () => change(on, components, docs('doc_00001')),
    'it is deleted': () => remove(on, components, 'doc_00001'),
    'it stays deleted': async () => {},
    'it comes back': () => change(on, components, docs('doc_00001')),
    'it is deleted and made anew': async () => {
      await remove(on, components, 'doc_00001')
      await change(on, components, docs('doc_00001'))
    },
    'a document is created and deleted': async () => {
      await change(on, components, docs('short'))
      await remove(on, components, 'short')
    },
    'a document becomes one of a type that is left out': () =>
      change(on, components, [{ _id: 'doc_00002', type: 'pillow_talk_doc' } as { _id: string }]),
    'and is one of another type again': () => change(on, components, docs('doc_00002')),
    'a design document is written': () =>
      change(on, components, [{ _id: '_design/one', views: {} } as { _id: string }]),
    'and changes': () =>
      change(on, components, [{ _id: '_design/one', language: 'erlang' } as { _id: string }]),
    'and goes': () => remove(on, components, '_design/one'),
    'another database changes': () => change(on, on.names.system, docs('doc_00001', 'new'))
  }
  for (const [what, step] of Object.entries(steps)) {
    await step()
    const { dbs } = await backUpRightly(t, on, pair, what)
    t.match(dbs[KEY]!.base, /^03_/, `${what}: not in full`)
  }
})

t.test('attachments, small and large, come and go', async (t) => {
  const { on, pair } = await setupPair(t, { count: 60 })
  const { components } = on.names
  await backUp(pair.chain)
  const attached = (_id: string, sizes: Record<string, number>, type = 'image/png') => {
    const entry = (name: string, size: number) => {
      const data = repeatedBytes(`${name} ${size} ${Date.now()}`, size).toString('base64')
      return [name, { content_type: type, data }]
    }
    const _attachments = Object.fromEntries(Object.entries(sizes).map(([name, size]) => entry(name, size)))
    return change(on, components, [{ _id, v: Date.now(), _attachments } as { _id: string }])
  }
  const LARGE = 4.3 * 1024 * 1024
  const steps: Record<string, () => Promise<unknown>> = {
    'a document gets one': () => attached('doc_00001', { a: 2000 }),
    'it changes': () => attached('doc_00001', { a: 3000, b: 10 }, 'text/plain'),
    'they are dropped': () => change(on, components, docs('doc_00001')),
    'large ones are added': async () => {
      await attached('doc_00002', { large: LARGE })
      await attached('doc_00003', { one: 2_500_000, two: 2_500_000, text: 100 }, 'text/plain')
    },
    'nothing happens': async () => {},
    'a large one changes': () => attached('doc_00002', { large: LARGE + 1 }),
    'a large one becomes small': () => attached('doc_00003', { one: 10 }),
    'a large one is deleted': () => remove(on, components, 'doc_00002')
  }
  for (const [what, step] of Object.entries(steps)) {
    await step()
    await backUpRightly(t, on, pair, what)
  }
})

t.test('conflicts are counted exactly, and the winner is held', async (t) => {
  const { on, pair } = await setupPair(t)
  const { components } = on.names
  await backUp(pair.chain)
  const leaf = (id: string, rev: string, more = {}) =>
    on.write(components, [{ _id: id, _rev: rev, v: rev, ...more }], false)
  const revOf = async (id: string) =>
    (await on.call('POST', `${components}/_all_docs`, { keys: [id] })).rows[0].value.rev
  const high = `1-${'f'.repeat(32)}`
  const low = `1-${'0'.repeat(32)}`
  // Below the revisions that the database makes, whatever the documents hold.
  const second = `1-${'0'.repeat(31)}1`
  const steps: Record<string, [number, () => Promise<unknown>]> = {
    'a losing leaf comes': [1, () => leaf('doc_00001', low)],
    'a winning leaf comes to another': [2, () => leaf('doc_00002', high)],
    'a second loser comes to the first': [2, () => leaf('doc_00001', second)],
    'a deleted leaf is no conflict': [2, () => leaf('doc_00003', low, { _deleted: true })],
    'the winner of the second is deleted, so that its former loser wins': [
      1,
      () => on.write(components, [{ _id: 'doc_00002', _rev: high, _deleted: true }])
    ],
    'a conflicted document changes': [1, () => change(on, components, docs('doc_00001'))],
    'one loser is deleted, one is left': [
      1,
      () => on.write(components, [{ _id: 'doc_00001', _rev: low, _deleted: true }])
    ],
    'the other one is deleted': [
      0,
      () => on.write(components, [{ _id: 'doc_00001', _rev: second, _deleted: true }])
    ],
    'a conflict of an old document is deleted with its winner': [
      0,
      async () => {
        await leaf('doc_00005', low)
        const _rev = await revOf('doc_00005')
        await on.write(components, [{ _id: 'doc_00005', _rev, _deleted: true }])
      }
    ]
  }
  for (const [what, [conflicts, step]] of Object.entries(steps)) {
    await step()
    const { dbs } = await backUpRightly(t, on, pair, what)
    t.equal(dbs[KEY]!.conflict_count, conflicts, what)
    t.match(dbs[KEY]!.base, /^03_/, `${what}: not in full`)
  }
})

t.test('an incremental backup does everything that a full one does', async (t) => {
  const { on, pair } = await setupPair(t, { count: 600 })
  const { components } = on.names
  await on.write(components, documents(4, 'big', 0, 1_200_000))
  await on.write(components, [{ _id: '_design/d', views: {} }])
  await backUp(pair.chain)
  for (let round = 0; round < 3; round++) {
    await change(on, components, docs(`doc_0000${round}`, `doc_005${round}0`, `new ${round}`))
    await change(on, components, documents(1, 'big', round + 1, 1_200_000) as { _id: string }[])
    await remove(on, components, `doc_004${round}0`)
    await backUp(pair.chain)
  }
  await change(on, components, docs('doc_00599'))
  const truth = await truthOf(on, on.names)
  const { id, dbs, base } = await backUp(pair.chain)
  t.match(dbs[KEY]!.base, /^03_/)
  const api = apiOf(pair.chain)
  const reply = await api.call('GET', `/${id}`)
  const whole = reply.rawPayload
  const { etag } = reply.headers as { etag: string }

  await t.test('it is sent with its length and entity tag, the same bytes each time', async (t) => {
    t.equal(reply.statusCode, 200)
    t.match(reply.headers, { 'content-length': String(whole.length), etag: /^"[^"]+"$/ })
    t.ok((await api.call('GET', `/${id}`)).rawPayload.equals(whole))
    const same = await api.call('GET', `/${id}`, undefined, { 'if-none-match': etag })
    t.equal(same.statusCode, 304)
    const { length } = await pair.chain.app.dbBackups.get(id)
    t.equal(length, whole.length)
  })

  await t.test('any part of it is what stands there in the whole', async (t) => {
    const rest = async (start: number, ifRange = etag) => {
      const range = { range: `bytes=${start}-`, 'if-range': ifRange }
      const part = await api.call('GET', `/${id}`, undefined, range)
      return (
        part.statusCode === 206 &&
        part.headers['content-length'] === String(whole.length - start) &&
        part.headers['content-range'] === `bytes ${start}-${whole.length - 1}/${whole.length}` &&
        part.rawPayload.equals(whole.subarray(start))
      )
    }
    // where a document begins that stands after one that was left out, and all around it
    const ids = [
      '"_id":"new 1"',
      '"_id":"doc_00001"',
      '"_id":"doc_00011"',
      '"_id":"big_00001"',
      '"athena_sessions"'
    ]
    const places = ids.map((text) => whole.indexOf(text))
    let place = whole.indexOf('"docs":[') + '"docs":['.length
    for (const { raw } of await listedChunks(on, on.names.backups, id, 'components')) {
      place += raw
      places.push(place)
    }
    for (const start of places.flatMap((place) => [place - 1, place, place + 1]))
      if (start >= 0 && start < whole.length) t.ok(await rest(start), `from ${start}`)
    t.ok(await rest(0))
    t.ok(await rest(whole.length - 1))
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), (start) => rest(start)),
      { numRuns: cases(10) }
    )
    const beyond = await api.call('GET', `/${id}`, undefined, { range: `bytes=${whole.length}-` })
    t.equal(beyond.statusCode, 416)
    t.match(beyond.headers, { 'content-range': `bytes */${whole.length}` })
  })

  await t.test('it is listed, and appended to', async (t) => {
    const { ids } = await pair.chain.app.dbBackups.list()
    t.equal(ids.at(-1), id)
    t.ok(ids.includes(base!))
    const appended = await api.call('PUT', `/${id}/attachments/note`, { attachment: 'text' })
    t.equal(appended.statusCode, 200)
    const again = await api.call('GET', `/${id}`)
    t.not(again.headers.etag, etag)
    t.equal(again.headers['content-length'], String(again.rawPayload.length))
    t.match(again.json(), { _attachments: { note: Buffer.from('text').toString('base64') } })
    t.strictSame(contentOf(again.rawPayload), contentOf(whole))
  })

  await t.test(
    'it is restored: as a dry run, exactly, into empty databases, and from its download',
    async (t) => {
      const unchanged = await (await pair.chain.app.dbBackups.restore({ id }, { dryRun: true })).finished
      t.match(unchanged.databases.components, { created: 0, changed: 0, unchanged: dbs[KEY]!.doc_count })
      await change(on, components, docs('doc_00001', 'too many'))
      await remove(on, components, 'doc_00002')
      const asked = { exact: true, dryRun: true }
      const dry = await (await pair.chain.app.dbBackups.restore({ id }, asked)).finished
      t.match(dry.databases.components, { created: 1, changed: 1, deleted: 1, failed: 0 })
      const done = await (await pair.chain.app.dbBackups.restore({ id }, { exact: true })).finished
      t.strictSame(done.databases, dry.databases)
      const restored = await truthOf(on, on.names)
      for (const logical of DATABASES) t.equal(difference(truth[logical]!, restored[logical]!), '', logical)

      const names = { ...on.names }
      for (const how of ['id', 'download']) {
        for (const logical of DATABASES) names[logical] = await on.create(`${on.names[logical]}_${how}`)
        const other = apiOf(await buildHost(t, { on, databases: names }))
        t.match(await other.restore(how === 'id' ? id : JSON.parse(whole.toString())), { status: 'success' })
        const found = await truthOf(on, names)
        for (const logical of DATABASES)
          t.equal(difference(truth[logical]!, found[logical]!), '', `${how}: ${logical}`)
      }
    }
  )
})

t.test('a backup stays whole when the ones it was built on are removed by hand', async (t) => {
  const { on, pair } = await setupPair(t)
  const backups = on.couch.use(on.names.backups)
  const made: BackupSummary[] = []
  const held: Buffer[] = []
  for (let round = 0; round < 4; round++) {
    await change(on, on.names.components, docs(`doc_0000${round}`, `new ${round}`))
    made.push(await backUp(pair.chain))
    held.push(await download(pair.chain, made[round]!.id))
  }
  for (const round of [1, 0, 2]) {
    const { id } = made[round]!
    await backups.destroy(id, (await backups.get(id))._rev)
    t.ok((await download(pair.chain, made[3]!.id)).equals(held[3]!))
  }
  await change(on, on.names.components, docs('doc_00009'))
  const next = await backUpRightly(t, on, pair, 'the next one')
  t.equal(next.base, made[3]!.id)
  await backups.destroy(made[3]!.id, (await backups.get(made[3]!.id))._rev)
  await backups.destroy(next.id, (await backups.get(next.id))._rev)
  const alone = await backUpRightly(t, on, pair, 'without any before')
  t.equal(alone.base, undefined)
})

t.test('a backup is built on the last one that is good', async (t) => {
  const { on, pair } = await setupPair(t)
  const good = await backUp(pair.chain)
  const backups = on.couch.use(on.names.backups)
  await change(on, on.names.components, docs('doc_00001'))
  const failed = await backUp(pair.chain)
  const header = await headerOf(on, failed.id)
  const storage = { ...header.storage, databases: {} }
  await backups.insert({ ...header, storage, error: 'it failed' } as never)
  await change(on, on.names.components, docs('doc_00002'))
  const next = await backUpRightly(t, on, pair, 'after a failed one')
  t.equal(next.base, good.id)
})

t.test(
  'backups that lie in the system database are incremental too, and hold nothing of themselves',
  async (t) => {
    const { on, pair } = await setupPair(t)
    const { backups: _, ...names } = on.names
    const host = await buildHost(t, { on, databases: names })
    const inside = { chain: host, full: pair.full }
    await backUp(host)
    for (let round = 1; round < 6; round++) {
      await change(on, names.system, docs('doc_00001', `new ${round}`))
      await change(on, names.components, docs('doc_00002'))
      const { dbs, chain_length } = await backUpRightly(t, on, inside, `round ${round}`)
      t.match(dbs.athena_system!.base, /^03_/)
      t.equal(chain_length, round)
    }
  }
)

t.test('design documents of any age are restored after the others', async (t) => {
  const { on, pair } = await setupPair(t)
  const { components } = on.names
  await on.write(components, [{ _id: '_design/d', validate_doc_update: 'function () {}' }])
  await backUp(pair.chain)
  await change(on, components, docs('doc_00001', 'later'))
  const { id } = await backUp(pair.chain)
  const truth = await truthOf(on, on.names)
  const names = { ...on.names, components: await on.create(`${components}_design`) }
  const host = await buildHost(t, { on, databases: names })
  await (await host.app.dbBackups.restore({ id })).finished
  t.equal(difference(truth.components!, (await truthOf(on, names)).components!), '')
  const { results } = await on.call('GET', `${names.components}/_changes?seq_interval=1`)
  if (on.raw) t.equal(results.at(-1).id, '_design/d')
})

t.test('conflicts and design documents are still known in chunks that are written anew', async (t) => {
  const { on, pair } = await setupPair(t, { incremental: { chain: 1000, waste: 0.05 } })
  const { components, backups } = on.names
  const low = (id: string) => ({ _id: id, _rev: `1-${'0'.repeat(32)}`, v: 'low' })
  await on.write(components, [low('doc_00001'), low('doc_00030'), low('doc_00150')], false)
  await on.write(components, [{ _id: '_design/d', views: {} }])
  const makers = async (id: string) =>
    (await listedChunks(on, backups, id, 'components'))
      .filter(({ conflicts }) => conflicts)
      .map(({ id }) => id)
  const first = await backUpRightly(t, on, pair, 'full')
  t.equal(first.dbs[KEY]!.conflict_count, 3)
  const before = await makers(first.id)
  await change(on, components, documents(60, 'doc', 1).slice(31) as { _id: string }[])
  const second = await backUpRightly(t, on, pair, 'many changed')
  const after = await makers(second.id)
  t.ok(after.length > 0 && after.every((id) => !before.includes(id)), 'what had conflicts is in new chunks')
  t.equal(second.dbs[KEY]!.conflict_count, 3)
  await on.write(components, [{ ...low('doc_00030'), _deleted: true }])
  await remove(on, components, 'doc_00001')
  const third = await backUpRightly(t, on, pair, 'one is resolved, and a loser comes up')
  t.equal(third.dbs[KEY]!.conflict_count, 1)
  const listed = await listedChunks(on, backups, third.id, 'components')
  const designs = listed.reduce((sum, { design }) => sum + design, 0)
  t.equal(designs, 1, 'the design document is known as one')
})

t.test('an index that tells nothing of chunks that are listed goes with them', async (t) => {
  const { on, pair } = await setupPair(t, { count: 100 })
  const indexOf = async ({ id }: BackupSummary) =>
    (await headerOf(on, id)).storage.databases.components!.index!.map(({ id }) => id)
  const first = await indexOf(await backUp(pair.chain))
  t.equal(first.length, 1)
  await change(on, on.names.components, docs('doc_00001'))
  const few = await indexOf(await backUp(pair.chain))
  t.ok(few.length === 2 && few.includes(first[0]!))
  await change(on, on.names.components, documents(40, 'doc', 1) as { _id: string }[])
  const many = await indexOf(await backUpRightly(t, on, pair, 'the first chunk is written anew'))
  t.notOk(many.includes(first[0]!))
})

t.test('a backup asks the database as often when the chain is long', async (t) => {
  const { on } = await setupPair(t, { count: 60 })
  let requests = 0
  const proxy = await startPagingProxy(t, on.url, {
    page: undefined,
    async before() {
      requests++
    }
  })
  const host = await buildHost(t, { on, couch: proxy.couch, databases: on.names })
  const counts: number[] = []
  for (let round = 0; round < extent(8, 16); round++) {
    await change(on, on.names.components, docs('doc_00001'))
    requests = 0
    await backUp(host)
    counts.push(requests)
  }
  const [few, many] = [Math.min(...counts.slice(1, 4)), Math.min(...counts.slice(-3))]
  t.ok(many <= few + 4, `requests of each: ${counts}`)
})
