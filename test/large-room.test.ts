import t, { type Test } from 'tap'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { repeatedBytes } from './helpers/seed.js'

const MiB = 1024 * 1024
const DOCUMENTS = ['a', 'b']
/** Bytes of each attachment, which the spool holds in base64. */
const LENGTH = LARGE_DOCUMENT + MiB
/** Room for one of the documents, and not for two. */
const SPOOL_BYTES = 10 * MiB

async function setup(t: Test) {
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on, limits: { spoolBytes: SPOOL_BYTES }, safety: false })
  const db = on.couch.use(on.names.components)
  for (const id of DOCUMENTS)
    await db.attachment.insert(id, 'data', repeatedBytes(id, LENGTH), 'application/octet-stream')
  return { on, db, host, id: await apiOf(host).backup() }
}

t.test('a restore by id takes room for one large document at a time', async (t) => {
  const { on, host, id } = await setup(t)
  await on.couch.db.destroy(on.names.components)
  const { finished } = await host.app.dbBackups.restore({ id })
  t.match((await finished).databases.components, { created: DOCUMENTS.length, failed: 0 })
})

t.test('diffs of backups give their room back', async (t) => {
  const { db, host, id } = await setup(t)
  await db.insert({ _rev: (await db.get('a'))._rev, changed: true } as never, 'a')
  const { id: other, finished } = await host.app.dbBackups.start({ full: true })
  await finished
  for (let time = 0; time < 3; time++) {
    const changes: string[] = []
    for await (const { id: changed } of host.app.dbBackups.diff(id, { against: other })) changes.push(changed)
    t.strictSame(changes, ['a'])
  }
})
