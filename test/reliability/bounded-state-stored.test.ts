import t from 'tap'
import { documentsOf, FULL, longDocument, prepareBoundedRuns } from '../helpers/bounded-state.js'
import { startGate } from '../helpers/gate.js'
import { setupRawDatabases } from '../helpers/raw-databases.js'

const LARGE = FULL ? 12 : 8
const CHANGING = FULL ? 200_000 : 30_000
const BATCH = 10_000

t.test('operations on any database stay within a budget in bytes', { timeout: 900_000 }, async (t) => {
  const { databases, run, upload } = prepareBoundedRuns(t)

  await t.test('documents of 6.6 MB, uploaded, backed up, compared and written over by id', async (t) => {
    const on = await databases()
    const large = (bytes: number) => upload(t, on, documentsOf(LARGE, longDocument(bytes)), ['head', 'row'])
    t.equal((await large(6_600_000)).writes, LARGE)
    const { id } = await run(t, on, { operation: 'backup' }, ['row', 'chunks'])
    t.equal((await large(6_600_001)).writes, LARGE)
    const restored = await run(t, on, { operation: 'restore', id }, ['row', 'bodies'])
    t.equal(restored.writes, LARGE)
  })

  await t.test('a database of which every document changes while it is backed up', async (t) => {
    const on = await setupRawDatabases(t)
    for (let i = 0; i < CHANGING; i += BATCH) {
      const some = documentsOf(BATCH, (n) => `{"_id":"a document ${i + n}"}`)
      await on.write(on.names.components, [...some])
    }
    const gate = await startGate(t, on)
    const last = new RegExp(`/${on.names.components}/_changes\\?since=${CHANGING}-`)
    const release = gate.hold(last)
    const { url } = (gate.couch as unknown as { config: { url: string } }).config
    const backup = run(t, { ...on, url }, { operation: 'backup' }, ['versions'])
    await gate.held(last)
    const store = on.raw.store.get(on.names.components)!
    for (const document of store.docs.values()) document.seq = ++store.seq
    release()
    const { id, docs } = await backup
    t.equal(docs, CHANGING)
    const compared = await run(t, on, { operation: 'restore', id, dryRun: true }, ['versions'])
    t.equal(compared.writes, 0)
  })
})
