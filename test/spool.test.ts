import { readdir, stat } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'
import { startServer } from './helpers/server-process.js'

const MiB = 1024 * 1024

t.test('nothing of an upload stays on the disk when its server is killed', async (t) => {
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
  while ((await readdir(spoolDirectory)).length === 0) await delay(10)
  server.signal('SIGKILL')
  await server.exited
  const left = await readdir(spoolDirectory, { recursive: true })
  for (const path of left) {
    const found = await stat(join(spoolDirectory, path))
    // A file that was just being opened still has its name, and nothing in it.
    t.ok(found.isDirectory() || found.size === 0, `${path} holds nothing`)
  }
  t.pass(`${left.length} directories and empty files are left`)
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
