import t from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

const rev = (generation: number, digit: string) => `${generation}-${digit.repeat(32)}`
const data = (text: string) => Buffer.from(text).toString('base64')

/** Returns the revisions of a document, the winner first. */
const DOCUMENTS: Record<string, object[]> = {
  plain: [{ _rev: rev(1, 'a'), v: 0 }],
  longer: [
    { _rev: rev(2, '1'), v: 1 },
    { _rev: rev(1, 'f'), v: 2 }
  ],
  greater: [
    { _rev: rev(1, 'c'), v: 1 },
    { _rev: rev(1, 'b'), v: 2 },
    { _rev: rev(1, 'a'), v: 3 }
  ],
  living: [
    { _rev: rev(1, 'a'), v: 1 },
    { _rev: rev(5, 'f'), _deleted: true }
  ],
  '_design/conflicted': [
    { _rev: rev(1, 'd'), language: 'javascript' },
    { _rev: rev(1, 'c'), language: 'erlang' }
  ],
  attached: [
    { _rev: rev(1, 'd'), _attachments: { a: { content_type: 'text/plain', data: data('winner') } } },
    { _rev: rev(1, 'c'), _attachments: { a: { content_type: 'text/plain', data: data('loser') } } }
  ],
  gone: [
    { _rev: rev(2, 'a'), _deleted: true },
    { _rev: rev(2, '9'), _deleted: true }
  ]
}
const CONFLICTED = ['_design/conflicted', 'attached', 'greater', 'longer']

t.test('the winning revision of a document with conflicts is backed up and restored', async (t) => {
  const on = await setupDatabases(t)
  const { couch, names } = on
  const components = couch.use(names.components)
  // write the loser last, so that the order of writing does not decide
  for (const at of [0, 1, 2]) {
    const docs = Object.entries(DOCUMENTS).flatMap(([_id, revisions]) =>
      revisions[at] ? [{ _id, ...revisions[at] }] : []
    )
    t.strictSame(await components.bulk({ docs, new_edits: false } as never), [])
  }
  const all = await components.list({ include_docs: true, conflicts: true } as object)
  const conflicted = all.rows.filter(({ doc }) => (doc as { _conflicts?: string[] })._conflicts)
  t.strictSame(
    conflicted.map(({ id }) => id),
    CONFLICTED,
    'the database sees the conflicts'
  )

  const api = apiOf(await buildHost(t, { on }))
  const before = await on.fetchAll(names.components)
  const id = await api.backup()
  const got = await api.call('GET', `/${id}`)
  t.notMatch(got.body, '_conflicts')
  t.notMatch(got.body, '_revisions')
  const database = (await api.get(id)).dbs.athena_components!
  t.equal(database.conflict_count, CONFLICTED.length)
  t.equal(database.doc_count, 6)
  t.strictSame(
    Object.fromEntries(database.docs.map(({ _id, _rev }) => [_id, _rev])),
    Object.fromEntries(
      Object.entries(DOCUMENTS)
        .filter(([id]) => id !== 'gone')
        .map(([id, revisions]) => [id, (revisions[0] as { _rev: string })._rev])
    )
  )
  t.equal(database.docs.find(({ _id }) => _id === 'attached')?._attachments?.a?.data, data('winner'))

  t.match((await api.restore(id)).databases, { components: { unchanged: 6, created: 0, changed: 0 } })
  await couch.db.destroy(names.components)
  t.match(await api.restore(id), { status: 'success', databases: { components: { created: 6 } } })
  const after = await on.fetchAll(names.components)
  for (const [id, { _rev }] of before) t.equal(after.get(id)?._rev, _rev)
  t.equal(after.size, before.size)
})

t.test('a conflict that is resolved is not counted any more', async (t) => {
  const on = await setupDatabases(t)
  const components = on.couch.use(on.names.components)
  const docs = DOCUMENTS.longer!.map((doc) => ({ _id: 'longer', ...doc }))
  await components.bulk({ docs, new_edits: false } as never)
  const api = apiOf(await buildHost(t, { on }))
  t.equal((await api.get(await api.backup())).dbs.athena_components!.conflict_count, 1)
  await components.destroy('longer', rev(1, 'f'))
  t.equal((await api.get(await api.backup())).dbs.athena_components!.conflict_count, 0)
})

t.test('a restore makes the backup win over the conflicting revisions of its target', async (t) => {
  const on = await setupDatabases(t)
  const components = on.couch.use(on.names.components)
  const edit = async (...docs: object[]) =>
    t.strictSame(await components.bulk({ docs, new_edits: false } as never), [])
  const ids = ['loser is the same', 'winner is the same', 'all differ', 'deleted beside']
  await edit(...ids.map((_id) => ({ _id, _rev: rev(1, '5'), v: 'backed up' })))
  const api = apiOf(await buildHost(t, { on }))
  const id = await api.backup()

  const after = (_id: string, generation: number, digit: string, more: object) => ({
    _id,
    ...more,
    _revisions: { start: generation, ids: [digit.repeat(32), '5'.repeat(32)].slice(0, generation) }
  })
  await edit(
    after('loser is the same', 2, '9', { v: 'changed' }),
    after('loser is the same', 2, '1', { v: 'backed up' }),
    after('winner is the same', 2, '9', { v: 'backed up' }),
    after('winner is the same', 2, '1', { v: 'changed' }),
    after('all differ', 2, '9', { v: 'changed' }),
    after('all differ', 2, '1', { v: 'changed, too' }),
    after('deleted beside', 2, '1', { v: 'changed' }),
    after('deleted beside', 2, '9', { _deleted: true })
  )
  const expected = { created: 0, changed: 3, unchanged: 1, failed: 0 }
  t.match(await api.restore(id), { status: 'success', databases: { components: expected } })
  for (const _id of ids) t.match(await components.get(_id), { v: 'backed up' }, _id)
  const again = { created: 0, changed: 0, unchanged: 4 }
  t.match((await api.restore(id)).databases, { components: again }, 'the second time writes nothing')
})
