import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import type { BackupSummary } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import {
  backUp,
  backUpRightly,
  buildPair,
  type ChainDatabases,
  change,
  checkContent,
  contentOf,
  docs,
  documents,
  download,
  listedChunks,
  remove,
  setupChain,
  truthOf
} from './helpers/chain.js'
import { DATABASES } from './helpers/database.js'
import { difference } from './helpers/fingerprints.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'

const KEY = 'athena_components'

/** Sources with some documents, and hosts on them. */
async function setup(t: Test, options: HostOptions & { count?: number } = {}) {
  const { count = 300, ...host } = options
  const on = await setupChain(t)
  await on.write(on.names.components, documents(count))
  await on.write(on.names.sessions, documents(30))
  await on.write(on.names.system, documents(30))
  const pair = await buildPair(t, on, host)
  return { on, pair, db: on.couch.use(on.names.components) }
}

const headerOf = async (on: ChainDatabases, id: string) =>
  (await on.couch.use(on.names.backups).get(id)) as unknown as StoredHeader

t.test('a backup after few changes takes what has not changed from the one before', async (t) => {
  const { on, pair } = await setup(t)
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
  t.match((await headerOf(on, second.id)).storage, { layout: 3, chain: { base: first.id, length: 1 } })

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
  const { on, pair } = await setup(t)
  const api = apiOf(pair.chain)
  const first = await api.backup()
  await change(on, on.names.components, docs('doc_00003'))
  const second = await api.backup()
  t.match(await pair.chain.app.dbBackups.summary(second), { base: first, chain_length: 1 })
  t.match(await api.get(second), { base: first, dbs: { [KEY]: { base: first } } })
})

t.test('full backups are made where they are asked for, and later ones build on them', async (t) => {
  const { on, pair } = await setup(t)
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
  const { on, pair } = await setup(t)
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
  const { on, pair } = await setup(t)
  const { components } = on.names
  await backUp(pair.chain)
  const attached = (_id: string, sizes: Record<string, number>, type = 'image/png') => {
    const entry = (name: string, size: number) => {
      const data = bytesOf(`${name} ${size} ${Date.now()}`, size).toString('base64')
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
  const { on, pair } = await setup(t)
  const { components } = on.names
  await backUp(pair.chain)
  const leaf = (id: string, rev: string, more = {}) =>
    on.write(components, [{ _id: id, _rev: rev, v: rev, ...more }], false)
  const revOf = async (id: string) =>
    (await on.call('POST', `${components}/_all_docs`, { keys: [id] })).rows[0].value.rev
  const high = `1-${'f'.repeat(32)}`
  const low = `1-${'0'.repeat(32)}`
  const steps: Record<string, [number, () => Promise<unknown>]> = {
    'a losing leaf comes': [1, () => leaf('doc_00001', low)],
    'a winning leaf comes to another': [2, () => leaf('doc_00002', high)],
    'a second loser comes to the first': [2, () => leaf('doc_00001', `1-${'1'.repeat(32)}`)],
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
      () => on.write(components, [{ _id: 'doc_00001', _rev: `1-${'1'.repeat(32)}`, _deleted: true }])
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

/** Deletes the parts of a backup that `choose` returns. */
async function harmChunk(on: ChainDatabases, id: string, harm: 'delete' | 'change') {
  const [chunk] = await listedChunks(on, on.names.backups, id, 'components')
  const db = on.couch.use(on.names.backups)
  const stored = (await db.get(chunk!.id)) as object & { _rev: string }
  if (harm === 'delete') await db.destroy(chunk!.id, stored._rev)
  else await db.insert(stored as never)
}

/** What makes a backup one that reads components in full, and what it says then. */
const REASONS: Record<
  string,
  { reason: RegExp; happens: (on: ChainDatabases, last: string) => Promise<unknown> }
> = {
  'the database was deleted and created again': {
    reason: /^created_again$/,
    async happens(on) {
      if (on.real) await delay(1100)
      await on.remake(on.names.components)
      await on.write(on.names.components, documents(20, 'other'))
    }
  },
  'the database was deleted and created again, empty': {
    reason: /^created_again$/,
    async happens(on) {
      if (on.real) await delay(1100)
      await on.remake(on.names.components)
    }
  },
  'a document was purged': {
    reason: /^purged$/,
    async happens(on) {
      const { rows } = await on.call('GET', `${on.names.components}/_all_docs?limit=1`)
      await on.call('POST', `${on.names.components}/_purge`, { [rows[0].id]: [rows[0].value.rev] })
    }
  },
  'a winning revision was purged': {
    reason: /^purged$/,
    async happens(on) {
      const high = `1-${'f'.repeat(32)}`
      await on.write(on.names.components, [{ _id: 'doc_00007', _rev: high, v: 'purged' }], false)
      await on.call('POST', `${on.names.components}/_purge`, { doc_00007: [high] })
    }
  },
  'a chunk of the base is missing': {
    reason: /^damaged_base$/,
    happens: (on, last) => harmChunk(on, last, 'delete')
  },
  'a chunk of the base is at another revision': {
    reason: /^damaged_base$/,
    happens: (on, last) => harmChunk(on, last, 'change')
  },
  'most documents changed': {
    reason: /^mostly_changed$/,
    // with few documents it does not matter
    happens: async (on) => {
      await on.write(on.names.components, documents(1500, 'more'))
    }
  },
  'the base is of an earlier layout': {
    reason: /^earlier_layout$/,
    async happens(on, last) {
      const db = on.couch.use(on.names.backups)
      const header = await headerOf(on, last)
      const { chain: _, ...storage } = header.storage as StoredHeader['storage'] & { chain?: object }
      const databases = Object.entries(storage.databases).map(([name, stored]) => {
        const { index: _, ...earlier } = stored as typeof stored & { index?: object }
        return [name, earlier]
      })
      await db.insert({
        ...header,
        storage: { ...storage, layout: 2, databases: Object.fromEntries(databases) }
      } as never)
    }
  }
}

for (const [what, { reason, happens }] of Object.entries(REASONS)) {
  t.test(`full: ${what}`, async (t) => {
    const { on, pair } = await setup(t)
    const { id } = await backUp(pair.chain)
    await happens(on, id)
    const second = await backUpRightly(t, on, pair, what)
    const { base, full_reason, reused_chunks } = second.dbs[KEY]!
    t.equal(base, undefined)
    t.match(full_reason, reason)
    t.equal(reused_chunks, 0)
    await on.age(on.names.components)
    await change(on, on.names.components, docs('doc_00001'))
    await backUpRightly(t, on, pair, 'after that')
  })
}

t.test('full: the sequences of the database went back', async (t) => {
  const { on, pair } = await setup(t)
  if (!on.raw) return t.comment('only where the files of the server can be put back')
  await backUp(pair.chain)
  const database = on.raw.store.get(on.names.components)!
  const earlier = { ...database, docs: new Map(database.docs) }
  await change(on, on.names.components, docs('doc_00001', 'doc_00002', 'lost'))
  await backUp(pair.chain)
  on.raw.store.set(on.names.components, earlier)
  const third = await backUpRightly(t, on, pair, 'an earlier state of the files')
  t.equal(third.dbs[KEY]!.base, undefined)
  t.equal(third.dbs[KEY]!.full_reason, 'sequence_reset')
})

t.test('full: other types are left out', async (t) => {
  const { on, pair } = await setup(t)
  await change(on, on.names.components, [{ _id: 'kept', type: 'cache' } as { _id: string }])
  await backUp(pair.chain)
  const other = await buildPair(t, on, { excludeTypes: ['cache'] })
  const truth = await truthOf(on, on.names, ['cache'])
  const second = await backUp(other.chain)
  await checkContent(t, other, second, truth, 'without a type')
  t.equal(second.dbs[KEY]!.base, undefined)
  t.equal(second.dbs[KEY]!.full_reason, 'excluded_types')
  const third = await backUpRightly(t, on, pair, 'with the type again')
  t.equal(third.dbs[KEY]!.full_reason, 'excluded_types')
})

t.test('full: the base did not have the database', async (t) => {
  const { on, pair } = await setup(t, { count: 0 })
  const { sessions } = on.names
  await on.call('DELETE', on.names.components)
  const first = await backUp(pair.chain)
  t.equal(first.dbs[KEY]!.missing, true)
  t.equal((await backUp(pair.chain)).dbs[KEY]!.missing, true, 'while it is missing')
  await on.remake(on.names.components)
  await on.age(on.names.components)
  await on.write(on.names.components, documents(10))
  await change(on, sessions, docs('doc_00001'))
  const second = await backUpRightly(t, on, pair, 'it is there now')
  t.equal(second.dbs[KEY]!.full_reason, 'not_in_base')
  t.match(second.dbs.athena_sessions!.base, /^03_/, 'the others are not read in full')
})

t.test('full: the chain is as long as the option allows', async (t) => {
  const { on, pair } = await setup(t, { incremental: { chain: 2 } })
  const lengths: unknown[] = []
  for (let round = 0; round < 5; round++) {
    await change(on, on.names.components, docs('doc_00001'))
    const { chain_length, dbs } = await backUpRightly(t, on, pair, `round ${round}`)
    lengths.push([chain_length, dbs[KEY]!.full_reason])
  }
  const expected = [0, 1, 2, 0, 1].map((length, round) => [
    length,
    length > 0 ? undefined : round > 0 ? 'chain_too_long' : 'no_base'
  ])
  t.strictSame(lengths, expected)
})

t.test('full: documents of the base could not be read', async (t) => {
  const { on, pair } = await setup(t, { retry: { attempts: 2, wait: 1, longest: 1 } })
  const { components } = on.names
  if (!on.raw) return t.comment('the raw server makes a document readable again without writing it')
  await change(on, components, [
    { _id: 'bad', _attachments: { a: { content_type: 'text/plain', data: 'eA==' } } } as { _id: string }
  ])
  const attachment = on.raw.store.get(components)!.docs.get('bad')!.leaves[0]!.attachments.get('a')!
  attachment.encoded = true
  const first = await backUp(pair.chain)
  t.equal(first.dbs[KEY]!.unreadable_count, 1)
  attachment.encoded = false
  const second = await backUpRightly(t, on, pair, 'it can be read now')
  t.equal(second.dbs[KEY]!.base, undefined)
  t.equal(second.dbs[KEY]!.full_reason, 'unreadable_documents')
})

t.test('a database that is made anew within a second is not taken for the one before', async (t) => {
  const anew: Record<string, (on: ChainDatabases) => Promise<unknown>> = {
    'it is empty': async () => {},
    'it has as many other documents': (on) => on.write(on.names.components, documents(5, 'other')),
    'it has other documents, each written twice': async (on) => {
      await on.write(on.names.components, documents(5, 'other'))
      await change(on, on.names.components, documents(5, 'other', 1) as { _id: string }[])
    },
    'it has some of the same documents, written often': async (on) => {
      await on.write(on.names.components, documents(2))
      for (let v = 1; v < 8; v++)
        await change(on, on.names.components, documents(2, 'doc', v) as { _id: string }[])
    }
  }
  for (const [what, fill] of Object.entries(anew)) {
    const { on, pair } = await setup(t, { count: 0 })
    await backUp(pair.chain)
    // so that all of it is done within one second
    await delay(1000 - (Date.now() % 1000) + 5)
    await on.remake(on.names.components)
    await on.write(on.names.components, documents(5))
    await backUp(pair.chain)
    const created = (await on.call('GET', on.names.components)).instance_start_time
    await on.remake(on.names.components)
    await fill(on)
    const again = (await on.call('GET', on.names.components)).instance_start_time
    t.comment(`${what}: ${created === again ? 'within the same second' : 'a second later'}`)
    await backUpRightly(t, on, pair, what)
    await change(on, on.names.components, docs('one more'))
    await backUpRightly(t, on, pair, `${what}, and again`)
  }
})

t.test('an incremental backup does everything that a full one does', async (t) => {
  const { on, pair } = await setup(t, { count: 600 })
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
      { numRuns: 25 }
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
  const { on, pair } = await setup(t)
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
  const { on, pair } = await setup(t)
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
    const { on, pair } = await setup(t)
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
  const { on, pair } = await setup(t)
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
