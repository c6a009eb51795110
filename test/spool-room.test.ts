import { request } from 'node:http'
import { PassThrough, Readable } from 'node:stream'
import t, { type Test } from 'tap'
import { Room } from '../lib/spool/room.js'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { spooledIn } from './helpers/spooled.js'

const MiB = 1024 * 1024

async function setup(t: Test, options: HostOptions = {}) {
  const spoolDirectory = t.testdir()
  const host = await buildHost(t, { spoolDirectory, limits: { spoolBytes: MiB, uploads: 60 }, ...options })
  const free = () =>
    poll('the room', async () => ((await spooledIn(spoolDirectory)).length === 0 ? true : undefined))
  return { host, spoolDirectory, room: new Room(spoolDirectory, MiB), free }
}

/** Sends a body that does not end until `finish` is called. */
function endless(bytes: number) {
  const body = new PassThrough()
  body.write(JSON.stringify(backupOf([{ _id: 'a', text: 'x'.repeat(bytes) }])).slice(0, -4))
  return { body, finish: () => body.end(']}}}') }
}

const outcome = (restore: Promise<{ finished: Promise<unknown> }>) =>
  restore.then(
    async ({ finished }) => {
      await finished
      return 'restored'
    },
    (error) => `${error.statusCode} ${error.code} ${error.message}`
  )

t.test('60 uploads at a time take no more than the room', async (t) => {
  const { host, room, free } = await setup(t)
  const uploads = Array.from({ length: 60 }, () => endless(400_000))
  const outcomes = uploads.map(({ body }) => outcome(host.app.dbBackups.restore({ body })))
  const refused: string[] = []
  for (const each of outcomes) void each.then((text) => refused.push(text))
  await poll('the others', () => (refused.length === 58 ? true : undefined))
  t.ok(room.reserved <= MiB, `${room.reserved} bytes are taken`)
  t.strictSame(
    [...new Set(refused.map((text) => text.slice(0, 35)))],
    ['507 DB_BACKUPS_INSUFFICIENT_STORAGE']
  )
  t.match(refused[0], /limits\.spoolBytes/)
  for (const { body } of uploads) body.destroy(new Error('gone'))
  await Promise.all(outcomes)
  await free()
  t.equal(room.reserved, 0)
  t.equal(await outcome(host.app.dbBackups.restore({ body: Readable.from(['{"dbs":{}}']) })), 'restored')
})

t.test('registrations that share a directory share its room', async (t) => {
  const { host, spoolDirectory, room, free } = await setup(t)
  const other = await buildHost(t, { spoolDirectory, limits: { uploads: 60, spoolBytes: MiB } })
  const { body, finish } = endless(800_000)
  const first = outcome(host.app.dbBackups.restore({ body }))
  await poll('its room', () => room.reserved || undefined)
  const second = endless(800_000)
  second.finish()
  t.match(await outcome(other.app.dbBackups.restore({ body: second.body })), /^507 .*limits\.spoolBytes/)
  finish()
  t.equal(await first, 'restored')
  await free()
  t.equal(room.reserved, 0)
  const again = endless(800_000)
  again.finish()
  t.equal(await outcome(other.app.dbBackups.restore({ body: again.body })), 'restored')
})

t.test('an upload is refused before anything of it is spooled when a restore runs', async (t) => {
  const { host, room } = await setup(t)
  const { body, finish } = endless(400_000)
  finish()
  let end = () => {}
  const rebuilt = new Promise<void>((resolve) => {
    end = resolve
  })
  const slow = await buildHost(t, { on: host.on, rebuildWhitelist: () => rebuilt })
  const { finished } = await slow.app.dbBackups.restore({ body: Readable.from(['{"dbs":{}}']) })
  const reply = await outcome(host.app.dbBackups.restore({ body }))
  t.match(reply, /already_in_progress/)
  t.equal(room.reserved, 0)
  t.ok(body.readableLength > 0, 'nothing of it was read')
  end()
  await finished
})

t.test('a client that breaks off is no error of the server', async (t) => {
  const lines: string[] = []
  const stream = { write: (line: string) => void lines.push(line) }
  const { host, free, room } = await setup(t, { server: { logger: { level: 'error', stream } } as object })
  const id = await apiOf(host).backup()
  const origin = await host.app.listen({ port: 0, host: '127.0.0.1' })
  for (const path of ['', `/${id}/attachments/a`]) {
    const upload = request(`${origin}/api/v1/backups${path}`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json', ...host.as('manager') }
    })
    upload.on('error', () => undefined)
    upload.write(path ? '{"attachment":"' : '{"dbs":{"components":{"docs":[{"_id":"a","x":"')
    upload.write('x'.repeat(500_000))
    // a document is written once all of it has arrived; members after an attachment would be refused
    if (!path) upload.write('"},')
    await poll('its room', () => room.reserved || undefined)
    upload.destroy()
    await free()
  }
  await poll('the end', async () => (room.reserved === 0 ? true : undefined))
  t.strictSame(lines, [])
})
