import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import {
  backUp,
  backUpRightly,
  buildPair,
  type ChainDatabases,
  change,
  checkContent,
  docs,
  documents,
  headerOf,
  listedChunks,
  setupPair,
  truthOf
} from './helpers/chain.js'

const KEY = 'athena_components'

/** Harms the first chunk that a backup lists of components. */
async function harmChunk(on: ChainDatabases, id: string, harm: 'delete' | 'change') {
  const [chunk] = await listedChunks(on, on.names.backups, id, 'components')
  const db = on.couch.use(on.names.backups)
  const stored = (await db.get(chunk!.id)) as object & { _rev: string }
  if (harm === 'delete') await db.destroy(chunk!.id, stored._rev)
  else await db.insert(stored as never)
}

async function edit(on: ChainDatabases, id: string, change: (header: StoredHeader) => void): Promise<void> {
  const header = await headerOf(on, id)
  change(header)
  await on.couch.use(on.names.backups).insert(header as never)
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
  "somebody has edited the base's sequence": {
    reason: /^damaged_base$/,
    happens: (on, last) =>
      edit(on, last, ({ dbs }) => void Object.assign(dbs[KEY]!, { last_sequence: 'now' }))
  },
  "somebody has edited the base's chunks": {
    reason: /^damaged_base$/,
    happens: (on, last) => edit(on, last, ({ storage }) => void storage.databases.components!.chunks.pop())
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
    const { on, pair } = await setupPair(t, { count: 60 })
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
  const { on, pair } = await setupPair(t)
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

t.test('full: a chunk of the base is found damaged when its turn to be read comes', async (t) => {
  const { on, pair } = await setupPair(t)
  if (!on.raw) return t.comment('only where bytes can be changed below a revision')
  const { id } = await backUp(pair.chain)
  const [chunk] = await listedChunks(on, on.names.backups, id, 'components')
  const { attachments } = on.raw.store.get(on.names.backups)!.docs.get(chunk!.id)!.leaves[0]!
  for (const attachment of attachments.values()) attachment.data = Buffer.from(attachment.data).reverse()
  await change(on, on.names.components, docs('doc_00001'))
  const second = await backUpRightly(t, on, pair, 'a damaged chunk')
  t.equal(second.dbs[KEY]!.full_reason, 'damaged_base')
})

t.test('full: other types are left out', async (t) => {
  const { on, pair } = await setupPair(t)
  await change(on, on.names.components, [{ _id: 'kept', type: 'cache' } as { _id: string }])
  const first = await backUp(pair.chain)
  const other = await buildPair(t, on, { excludeTypes: ['cache'] })
  const truth = await truthOf(on, on.names, ['cache'])
  const second = await backUp(other.chain)
  await checkContent(t, other, second, truth, 'without a type')
  t.equal(second.dbs[KEY]!.base, undefined)
  t.equal(second.dbs[KEY]!.full_reason, 'excluded_types')
  const third = await backUpRightly(t, on, pair, 'with the type again')
  t.equal(third.dbs[KEY]!.base, first.id, 'hosts that leave out other types have bases of their own')
})

t.test('full: the base did not have the database', async (t) => {
  const { on, pair } = await setupPair(t, { count: 0 })
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
  t.equal(second.base, second.dbs.athena_sessions!.base, 'and the backup tells its base')
})

t.test('full: the chain is as long as the option allows', async (t) => {
  const { on, pair } = await setupPair(t, { incremental: { chain: 2 } })
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

t.test('documents that the base could not read are asked for again, if it names all of them', async (t) => {
  const { on, pair } = await setupPair(t, { retry: { attempts: 2, wait: 1, longest: 1 } })
  const { components } = on.names
  if (!on.raw) return t.comment('the raw server makes a document readable again without writing it')
  await change(on, components, [
    { _id: 'bad', _attachments: { a: { content_type: 'text/plain', data: 'eA==' } } } as { _id: string }
  ])
  const attachment = on.raw.store.get(components)!.docs.get('bad')!.leaves[0]!.attachments.get('a')!
  attachment.encoded = true
  const first = await backUp(pair.chain)
  t.equal(first.dbs[KEY]!.unreadable_count, 1)
  await change(on, components, docs('doc_00001'))
  const second = await backUp(pair.chain)
  t.match(second.dbs[KEY], {
    base: first.id,
    unreadable_count: 1,
    unreadable: [{ id: 'bad' }],
    doc_count: 300
  })
  attachment.encoded = false
  const third = await backUpRightly(t, on, pair, 'it can be read now')
  t.match(third.dbs[KEY], { base: second.id, unreadable_count: undefined, doc_count: 301 })

  attachment.encoded = true
  await change(on, components, docs('bad'))
  const long = 'x'.repeat(600)
  await change(on, components, [
    { _id: long, _attachments: { a: { content_type: 'text/plain', data: 'eA==' } } } as { _id: string }
  ])
  on.raw.store.get(components)!.docs.get(long)!.leaves[0]!.attachments.get('a')!.encoded = true
  const fourth = await backUp(pair.chain)
  t.match(fourth.dbs[KEY], { base: third.id, unreadable: [{ id_truncated: true }] })
  const fifth = await backUp(pair.chain)
  t.equal(fifth.dbs[KEY]!.full_reason, 'unreadable_documents', 'its id is not known whole')
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
    const { on, pair } = await setupPair(t, { count: 0 })
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
