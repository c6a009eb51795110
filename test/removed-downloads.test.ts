import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import nano from 'nano'
import t, { type Test } from 'tap'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { bytesOf, load } from './helpers/seed.js'
import { StoredBackupsOf } from './helpers/stored-backups.js'

/** Bytes that a client reads before the backup is removed: more than the header. */
const READ = 10_000

/** Makes two backups of 16 MB in chunks, more than sockets hold, and a server to download them from. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const docs = Array.from({ length: 160 }, (_, i) => ({
    _id: `doc_${i}`,
    text: bytesOf(`${i}`, 75_000).toString('base64')
  }))
  await load(on.couch.use(on.names.components), docs, 20)
  const { app } = await buildHost(t, { on })
  const { dbBackups } = app
  const ids: string[] = []
  for (let i = 0; i < 2; i++) {
    const { id, finished } = await dbBackups.start({ full: true })
    await finished
    ids.push(id)
  }
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  const ask = async (id: string, headers: Record<string, string> = {}) => {
    const path = `/api/v3/backups/${id}`
    const request = get({ port, path, headers: { 'x-role': 'manager', ...headers }, agent: false })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    return response
  }
  const [first, newest] = ids as [string, string]
  return { on, dbBackups, first, newest, ask, stored: new StoredBackupsOf(on) }
}

/** Reads the beginning of a reply, does something, then reads what still comes. */
async function readAround(response: IncomingMessage, between: () => Promise<unknown>) {
  const pieces: Buffer[] = []
  while (pieces.reduce((sum, { length }) => sum + length, 0) < READ) {
    const piece = response.read() as Buffer | null
    if (piece) pieces.push(piece)
    else await once(response, 'readable')
  }
  await between()
  const closed = once(response, 'close').catch(() => undefined)
  response.on('error', () => undefined)
  response.on('data', (piece: Buffer) => pieces.push(piece))
  await closed
  return { bytes: Buffer.concat(pieces), complete: response.complete }
}

for (const [what, headers] of Object.entries<Record<string, string>>({
  'a download': {},
  'a download from a byte on': { range: `bytes=${READ}-` }
})) {
  t.test(`${what} whose backup is removed breaks off, and what came is of the backup`, async (t) => {
    const { dbBackups, first, ask } = await setup(t)
    const whole = await buffer(await ask(first, headers))
    const response = await ask(first, headers)
    t.equal(response.statusCode, headers.range ? 206 : 200)
    const { bytes, complete } = await readAround(response, () => dbBackups.remove(first))
    t.equal(complete, false, 'it is cut off')
    t.ok(bytes.length < whole.length, `${bytes.length} of ${whole.length} bytes`)
    t.ok(bytes.equals(whole.subarray(0, bytes.length)))
  })
}

t.test('a download whose chunks another backup has as well completes', async (t) => {
  const { dbBackups, first, newest, ask, stored } = await setup(t)
  await stored.share(newest, first)
  const whole = await buffer(await ask(first))
  const { bytes, complete } = await readAround(await ask(first), () => dbBackups.remove(first))
  t.equal(complete, true)
  t.ok(bytes.equals(whole))
})

t.test('nothing of a removed backup is sent, nor said to be the same, to whoever asks again', async (t) => {
  const { dbBackups, first, ask } = await setup(t)
  const answer = await ask(first)
  const { etag } = answer.headers
  answer.destroy()
  t.ok(etag)
  const content = await dbBackups.get(first)
  await dbBackups.remove(first)
  for (const headers of [
    {},
    { range: 'bytes=100-' },
    { 'if-none-match': etag! },
    { range: 'bytes=100-', 'if-range': etag! }
  ] as Record<string, string>[]) {
    const response = await ask(first, headers)
    t.equal(response.statusCode, 404, JSON.stringify(headers))
    for (const header of ['etag', 'content-range', 'accept-ranges']) t.notOk(response.headers[header])
    t.match(JSON.parse(String(await buffer(response))), { error: 'not_found' })
  }
  const gone = { code: 'DB_BACKUPS_NOT_FOUND' }
  await t.rejects(buffer(content.body), gone, 'one that was opened before fails as it is read')
  await t.rejects(buffer(content.bodyFrom!(READ)), gone)
})

t.test('a diff of a backup that is removed meanwhile says that it is gone, not damaged', async (t) => {
  const { on, dbBackups, first, newest } = await setup(t)
  const proxy = await startFaultProxy(t, on.url)
  const { app } = await buildHost(t, { on: { ...on, couch: nano(proxy.url) } })
  const path = /backup_chunk_/
  const release = proxy.hold({ path })
  const read = app.dbBackups.diff(first, { against: newest }).toArray()
  read.catch(() => undefined)
  await poll('a request of a chunk', () => proxy.seen.some((seen) => path.test(seen.path)) || undefined)
  await dbBackups.remove(first)
  release()
  await t.rejects(read, { code: 'DB_BACKUPS_NOT_FOUND' })
})
