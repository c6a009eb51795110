import { once } from 'node:events'
import { request } from 'node:http'
import t from 'tap'
import { setupDatabases } from '../helpers/database.js'
import { type ServerProcess, startServer } from '../helpers/server-process.js'

const MiB = 1024 * 1024
/** Bytes that an append holds: pieces of 64 KiB that arrive, are written and are read back, and a block of 16 KiB. */
const HELD = MiB
/** Bytes of unused buffers that V8 keeps before it collects them. */
const GARBAGE = 48 * MiB
const LONGEST_TURN = 25

/** Appends an attachment that this process does not hold, and returns the status. */
async function append(server: ServerProcess, id: string, name: string, bytes: number): Promise<number> {
  const sending = request(`${server.origin}/api/v3/backups/${id}/attachments/${name}`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' }
  })
  const replied = once(sending, 'response')
  sending.write('{"attachment":"')
  const piece = Buffer.alloc(64 * 1024, 'x')
  for (let sent = 0; sent < bytes; sent += piece.length) {
    if (!sending.write(piece.subarray(0, bytes - sent))) await once(sending, 'drain')
  }
  sending.end('"}')
  const [reply] = await replied
  reply.resume()
  await once(reply, 'end')
  return reply.statusCode
}

async function backupOn(server: ServerProcess): Promise<string> {
  const { id } = (await server.post('')).json
  while ((await server.get(`/${id}`)).json.in_progress);
  return id
}

for (const count of [40, 150]) {
  t.test(`of ${count} appends at a time none is lost`, { timeout: 60_000 }, async (t) => {
    const { url, names } = await setupDatabases(t)
    const server = await startServer(t, { url, databases: names })
    const id = await backupOn(server)
    await append(server, id, 'warm', 100)
    await server.measure()
    const all = Array.from({ length: count }, (_, i) => append(server, id, `a${i}`, 100))
    const statuses = await Promise.all(all)
    const tally = (status: number) => statuses.filter((other) => other === status).length
    t.comment([...new Set(statuses)].map((status) => `${status}: ${tally(status)}`).join(', '))
    t.equal(tally(200) + tally(503), count, 'each is stored, or told to come again')
    const { turn } = await server.measure()
    t.comment(`longest turn ${Math.round(turn)} ms`)
    t.ok(turn <= LONGEST_TURN, `the longest turn took ${turn} ms`)
    const { _attachments = {} } = (await server.get(`/${id}`)).json
    t.equal(Object.keys(_attachments).length, tally(200) + 1, 'every attachment reported as stored is stored')
    t.ok(tally(200) >= 40, 'some were stored')
  })
}

t.test(
  'ten appends of 32 MiB at a time take a few pieces each, and no long turn',
  { timeout: 60_000 },
  async (t) => {
    const { url, names } = await setupDatabases(t)
    const server = await startServer(t, { url, databases: names, limits: { attachmentsBytes: 320 * MiB } })
    const id = await backupOn(server)
    await append(server, id, 'warm', MiB)
    const before = await server.measure()
    const statuses = await Promise.all(
      Array.from({ length: 10 }, (_, i) => append(server, id, `a${i}`, 32 * MiB - 1024 * 1024))
    )
    const { rss, turn } = await server.measure()
    t.strictSame(new Set(statuses), new Set([200]))
    t.comment(`${Math.round((rss - before.rss) / MiB)} MiB above idle, longest turn ${Math.round(turn)} ms`)
    t.ok(rss - before.rss <= 10 * HELD + GARBAGE, `${rss - before.rss} bytes above idle`)
    t.ok(turn <= LONGEST_TURN, `the longest turn took ${turn} ms`)
  }
)
