import { readdir, stat } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { bytesOf } from './helpers/seed.js'
import { startServer } from './helpers/server-process.js'
import { spooledIn } from './helpers/spooled.js'

const MiB = 1024 * 1024

t.test('an upload leaves nothing on the disk when its server is killed', async (t) => {
  const spoolDirectory = t.testdir()
  const { url, names } = await setupDatabases(t)
  const server = await startServer(t, { url, databases: names, spoolDirectory })
  const upload = request(`${server.origin}/api/v3/backups`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' }
  })
  upload.on('error', () => undefined)
  upload.write('{"dbs":{"athena_components":{"docs":[')
  for (let i = 0; i < 200; i++) {
    upload.write(`${JSON.stringify({ _id: `secret ${i}`, text: 'x'.repeat(20_000) })},`)
  }
  await poll('a spooled file', async () => {
    const files = await spooledIn(spoolDirectory, server.child.pid)
    return files.find((bytes) => typeof bytes === 'number' && bytes > 0)
  })
  server.signal('SIGKILL')
  await server.exited
  for (const name of await readdir(spoolDirectory)) {
    // a file that was just being created still has its name, and is empty
    const found = await stat(join(spoolDirectory, name))
    t.ok(found.isFile() && found.size === 0, `${name} holds nothing`)
  }
})

t.test('the spool holds one large document of a stored backup at a time', async (t) => {
  const on = await setupDatabases(t)
  const db = on.couch.use(on.names.components)
  for (const id of ['a', 'b', 'c']) {
    const { rev } = await db.insert({ n: 1 } as never, id)
    await db.attachment.insert(id, 'a', bytesOf(id, 5 * MiB), 'image/png', { rev })
  }
  const host = await buildHost(t, { on, limits: { spoolBytes: 8 * MiB } })
  const api = apiOf(host)
  const id = await api.backup()
  const before = await on.fetchAll(on.names.components)
  for (const { _id, _rev } of before.values()) await db.destroy(_id, _rev as string)
  t.match(await api.restore(id), { status: 'success', failures: [] })
  const data = ({ _attachments }: { _attachments?: Record<string, { data: string }> }) => _attachments?.a.data
  const after = await on.fetchAll(on.names.components)
  t.equal(after.size, 3)
  for (const [id, document] of after) t.ok(data(document) === data(before.get(id)!), `${id} is as it was`)
})
