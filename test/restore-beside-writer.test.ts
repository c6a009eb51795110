import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { recreate, setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'

const COUNT = 20

/** Backs up some documents, empties their database, and builds a host that reaches it through a gate. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const { couch, names } = on
  const db = couch.use(names.components)
  const docs = Array.from({ length: COUNT }, (_, i) => ({ _id: `doc ${i}`, by: 'backup', i }))
  await db.bulk({ docs: [...docs, { _id: '_design/d', language: 'javascript' }] } as never)
  const api = apiOf(await buildHost(t, { on }))
  const id = await api.backup()
  const gate = await startGate(t, on)
  const through = apiOf(await buildHost(t, { on: { ...on, couch: gate.couch } }))
  return { on, db, gate, id, docs, through }
}

/** Checks that clients see the documents of the backup, without a conflict. */
async function expectRestored(t: Test, { on, db }: Awaited<ReturnType<typeof setup>>): Promise<void> {
  const { rows } = await db.list({ include_docs: true, conflicts: true } as never)
  const all = rows.map(({ doc }) => doc as unknown as Record<string, unknown>)
  const documents = all.filter(({ _id }) => !String(_id).startsWith('_design/'))
  t.ok(documents.length > 0 && documents.every(({ by }) => by === 'backup'))
  // the embedded database answers a `_bulk_get` with the winning revision only
  if (on.real)
    t.strictSame(
      all.filter(({ _conflicts }) => _conflicts),
      []
    )
}

t.test('a write just before a batch is written over, and leaves no conflict', async (t) => {
  const setting = await setup(t)
  const { on, db, gate, id, through } = setting
  await recreate(on.couch, on.names.components)
  const write = /POST .*components\/_bulk_docs/
  const release = gate.hold(write)
  const restored = through.restore(id)
  await gate.held(write)
  // revisions that sort before and after those of the backup, and longer and shorter histories
  const others = Array.from({ length: COUNT }, (_, i) => ({
    _id: `doc ${i}`,
    _rev: `${1 + (i % 2)}-${(i % 16).toString(16).repeat(32)}`,
    by: 'console'
  }))
  await db.bulk({ docs: others, new_edits: false } as never)
  release()
  t.match(await restored, { status: 'success', databases: { components: { created: COUNT + 1, failed: 0 } } })
  await expectRestored(t, setting)
})

t.test('a version that loses is not left beside a document that was created', async (t) => {
  const on = await setupRawDatabases(t)
  const { components } = on.names
  await on.write(components, ['{"_id":"beside","by":"backup"}', '{"_id":"alone","by":"backup"}'])
  const id = await apiOf(await buildHost(t, { on })).backup()
  const gate = await startGate(t, on)
  const through = apiOf(await buildHost(t, { on: { ...on, couch: gate.couch } }))
  const { docs } = on.raw.store.get(components)!
  docs.clear()
  const write = /POST .*components\/_bulk_docs/
  const release = gate.hold(write)
  const restored = through.restore(id)
  await gate.held(write)
  const other = { _id: 'beside', _rev: `1-${'0'.repeat(32)}`, by: 'console' }
  await on.write(components, [JSON.stringify(other)], false)
  release()
  t.match(await restored, { status: 'success', databases: { components: { created: 2, failed: 0 } } })
  for (const name of ['beside', 'alone']) {
    const living = docs.get(name)!.leaves.filter(({ deleted }) => !deleted)
    t.equal(living.length, 1, `${name} is alone`)
    t.match(living[0]!.body.toString(), /"by":"backup"/)
  }
})

t.test('a document deleted before the scan is restored where no deletions were counted', async (t) => {
  const setting = await setup(t)
  const { on, db, gate, id, through } = setting
  await recreate(on.couch, on.names.components)
  // the content of the backup, for which CouchDB creates the same revision
  await db.insert({ _id: 'doc 0', by: 'backup', i: 0 } as never)
  const scan = /GET .*components\/_all_docs/
  const release = gate.hold(scan)
  const restored = through.restore(id)
  await gate.held(scan)
  await db.destroy('doc 0', (await db.get('doc 0'))._rev)
  release()
  t.match(await restored, { status: 'success', databases: { components: { created: COUNT + 1, failed: 0 } } })
  await expectRestored(t, setting)
})

t.test('an upload beside a writer ends as a restore by id does', async (t) => {
  const setting = await setup(t)
  const { on, db, gate, docs, through } = setting
  await recreate(on.couch, on.names.components)
  const write = /POST .*components\/_bulk_docs/
  const release = gate.hold(write)
  const restored = through.restore({ dbs: { components: { docs } } })
  await gate.held(write)
  await db.bulk({ docs: docs.map(({ _id }) => ({ _id, by: 'console' })) } as never)
  release()
  t.match(await restored, { status: 'success', databases: { components: { created: COUNT, failed: 0 } } })
  await expectRestored(t, setting)
})

t.test('a large document beside a writer is written over as well', async (t) => {
  const setting = await setup(t)
  const { on, db, gate, through } = setting
  const data = Buffer.alloc(5_000_000, 1).toString('base64')
  const _attachments = { a: { content_type: 'image/png', data } }
  await db.insert({ _id: 'large', by: 'backup', _attachments } as never)
  const id = await through.backup()
  await recreate(on.couch, on.names.components)
  const write = /PUT .*components\/large/
  const release = gate.hold(write)
  const restored = through.restore(id)
  await gate.held(write)
  const other = { _id: 'large', _rev: `9-${'a'.repeat(32)}`, by: 'console' }
  await db.bulk({ docs: [other], new_edits: false } as never)
  release()
  t.match(await restored, { status: 'success', databases: { components: { created: COUNT + 2, failed: 0 } } })
  await expectRestored(t, setting)
})

t.test('a database that is created again while it is restored fails the restore', async (t) => {
  const setting = await setup(t)
  const { on, gate, id, docs, through } = setting
  for (const source of [id, { dbs: { components: { docs } } }]) {
    await recreate(on.couch, on.names.components)
    // CouchDB tells creation times in seconds
    if (on.real) await delay(1100)
    const write = /POST .*components\/_bulk_docs/
    const release = gate.hold(write)
    const restored = through.restore(source)
    await gate.held(write)
    await recreate(on.couch, on.names.components)
    release()
    const tx = await restored
    // the embedded database tells no creation time
    if (on.real) t.match(tx, { status: 'error', athena_messages: [/./, /./, /deleted and created again/] })
  }
})

t.test('a writer that goes on writing is written over, or the document is named', async (t) => {
  const setting = await setup(t)
  const { on, db, gate, id, through } = setting
  if (!on.real) return void t.comment('the embedded database does not tell conflicts')
  await recreate(on.couch, on.names.components)
  const write = /POST .*components\/_bulk_docs/
  let release = gate.hold(write)
  const restored = through.restore(id)
  await gate.held(write)
  const rev = `1-${'0'.repeat(32)}`
  await db.bulk({ docs: [{ _id: 'doc 0', _rev: rev, by: 'console' }], new_edits: false } as never)
  const read = /POST .*components\/_bulk_get/
  const releaseRead = gate.hold(read)
  release()
  await gate.held(read)
  release = gate.hold(write)
  releaseRead()
  await gate.held(write)
  await db.insert({ _id: 'doc 0', _rev: rev, by: 'console again' } as never)
  release()
  t.match(await restored, { status: 'success', databases: { components: { failed: 0 } } })
  await expectRestored(t, setting)
})

t.test('a version that is replicated while a document is written over does not hide it', async (t) => {
  const setting = await setup(t)
  const { on, db, gate, id, docs, through } = setting
  const large = { content_type: 'image/png', data: Buffer.alloc(5_000_000, 1).toString('base64') }
  const all = [...docs, { _id: 'large', by: 'backup', _attachments: { large } }]
  for (const source of [id, { dbs: { components: { docs: all } } }]) {
    const { rows } = await db.list()
    const edits = rows.filter((row) => !row.id.startsWith('_')).map((row) => ({ ...row, by: 'old' }))
    await db.bulk({ docs: edits.map(({ id, value, by }) => ({ _id: id, _rev: value.rev, by })) } as never)
    if (typeof source !== 'string') await db.insert({ _id: 'large', by: 'old' } as never)
    const write = /POST .*components\/_bulk_docs/
    const release = gate.hold(write)
    const restored = through.restore(source)
    await gate.held(write)
    const [digest, generation] = typeof source === 'string' ? ['e', 9] : ['f', 99]
    const others = ['doc 0', 'doc 7', ...(typeof source === 'string' ? [] : ['large'])]
    const replicated = others.map((_id) => ({
      _id,
      _rev: `${generation}-${digest.repeat(32)}`,
      by: 'console'
    }))
    await db.bulk({ docs: replicated, new_edits: false } as never)
    release()
    t.match(await restored, { status: 'success', databases: { components: { failed: 0 } } })
    const after = await db.list({ include_docs: true } as never)
    const seen = after.rows.map(({ doc }) => doc as unknown as Record<string, unknown>)
    t.ok(seen.filter(({ _id }) => !String(_id).startsWith('_')).every(({ by }) => by === 'backup'))
    for (const _id of others)
      if (on.real)
        t.notOk('_conflicts' in (await db.get(_id, { conflicts: true } as never)), `${_id} is alone`)
  }
})
