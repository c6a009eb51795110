import { type AddressInfo, connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { KeyedMutex } from '../lib/waits/keyed-mutex.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'
import { cases, extent } from './helpers/settings.js'

/** Builds a host with a backup, and a gate in front of its database. */
async function setup(t: Test, options: HostOptions = {}) {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch, ...options })
  const api = apiOf(host)
  const id = await api.backup()
  const append = (name: string, attachment = name) =>
    api.call('PUT', `/${id}/attachments/${name}`, { attachment })
  return { on, gate, host, api, id, append }
}

const base64 = (text: string) => Buffer.from(text).toString('base64')

t.test('work on one thing runs in the order of arrival, and what gives up does not run', async (t) => {
  const kinds = fc.array(fc.constantFrom('works', 'fails', 'leaves'), { minLength: 1, maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(kinds, async (kinds) => {
      const mutex = new KeyedMutex()
      const order: number[] = []
      let atWork = 0
      let begin = () => {}
      const first = mutex.run('key', () => new Promise<void>((resolve) => (begin = resolve)))
      const others = kinds.map((kind, i) => {
        const left = new AbortController()
        const patience = { most: 100, full: () => new Error('full'), signal: left.signal }
        const work = async () => {
          if (++atWork > 1) throw new Error('two at a time')
          order.push(i)
          await delay(0)
          atWork--
          if (kind === 'fails') throw new Error('failed')
        }
        const end = mutex.run('key', work, patience).then(
          () => 'worked',
          (error: Error) => error.message
        )
        if (kind === 'leaves') left.abort(new Error('left'))
        return end
      })
      await delay(0)
      begin()
      await first
      const outcomes = await Promise.all(others)
      const expected = { works: 'worked', fails: 'failed', leaves: 'left' }
      if (outcomes.some((outcome, i) => outcome !== expected[kinds[i]!])) throw new Error(`${outcomes}`)
      const came = kinds.flatMap((kind, i) => (kind === 'leaves' ? [] : [i]))
      if (order.join() !== came.join()) throw new Error(`${order} of ${came}`)
    }),
    { numRuns: cases(30) }
  )
  t.pass('in any case')
})

t.test('the last append of a name is kept', async (t) => {
  const { gate, host, id, api } = await setup(t)
  const release = gate.hold(/attachments?|\/a\?rev|\/a$/)
  const appends = Array.from({ length: 10 }, (_, i) => host.app.dbBackups.attach(id, 'a', `of ${i}`))
  await delay(50)
  release()
  await Promise.all(appends)
  t.same((await api.get(id))._attachments, { a: base64('of 9') })
})

/** Appends at a time. */
const MANY = extent(60, 150)

t.test(`${MANY} at a time are all stored`, async (t) => {
  // on a busy machine the embedded database takes longer for so many
  const { api, id, append } = await setup(t, { timeouts: { control: 120_000 } })
  const names = Array.from({ length: MANY }, (_, i) => `a${i}`)
  const replies = await Promise.all(names.map((name) => append(name)))
  t.strictSame(replies.filter(({ statusCode }) => statusCode !== 200).length, 0)
  t.strictSame(Object.keys((await api.get(id))._attachments!).sort(), names.toSorted())
})

t.test('a wait for a turn ends with 503, and the backup can be appended to again', async (t) => {
  const { gate, append, api, id } = await setup(t, { timeouts: { control: 400, idle: 2000 } })
  const held = /03_ibp_db_backup_\d+\/slow/
  const release = gate.hold(held)
  const slow = append('slow')
  await gate.held(held)
  const waiting = await Promise.all([append('a'), append('b')])
  for (const reply of waiting) {
    t.equal(reply.statusCode, 503)
    t.match(reply.json(), { code: 'DB_BACKUPS_APPEND_BUSY', message: /try again/ })
    t.equal(reply.headers['retry-after'], '5')
  }
  release()
  await slow
  t.equal((await append('c')).statusCode, 200)
  t.ok((await api.get(id))._attachments!.c)
})

t.test('no more than 256 wait', async (t) => {
  const { gate, host, id } = await setup(t)
  const held = /03_ibp_db_backup_\d+\/slow/
  const release = gate.hold(held)
  const slow = host.app.dbBackups.attach(id, 'slow', 'x')
  await gate.held(held)
  const others = Array.from({ length: 260 }, () =>
    host.app.dbBackups.attach(id, 'a', 'x').then(
      () => 'stored',
      (error) => error.code
    )
  )
  const refused = await Promise.all(others.slice(256))
  t.strictSame(new Set(refused), new Set(['DB_BACKUPS_APPEND_BUSY']))
  release()
  await slow
  t.strictSame(new Set(await Promise.all(others.slice(0, 256))), new Set(['stored']))
})

t.test('a client that breaks off while it waits is not served any more', async (t) => {
  const { gate, host, api, id, append } = await setup(t)
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const held = /03_ibp_db_backup_\d+\/slow/
  const release = gate.hold(held)
  const slow = append('slow')
  await gate.held(held)
  const socket = connect((host.app.server.address() as AddressInfo).port, '127.0.0.1')
  const body = '{"attachment":"x"}'
  socket.write(
    `PUT /api/v1/backups/${id}/attachments/left HTTP/1.1\r\nhost: x\r\nx-role: manager\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
  )
  await delay(200)
  socket.destroy()
  const connections = () =>
    new Promise<number>((resolve) => host.app.server.getConnections((_, count) => resolve(count)))
  await poll('its end', async () => ((await connections()) === 0 ? true : undefined))
  const after = append('after')
  release()
  t.equal((await slow).statusCode, 200)
  t.equal((await after).statusCode, 200)
  t.strictSame(Object.keys((await api.get(id))._attachments!).sort(), ['after', 'slow'])
})

t.test('an append to a backup whose header goes away meanwhile is refused by 404', async (t) => {
  const { on, gate, id, append } = await setup(t)
  const held = /03_ibp_db_backup_\d+\/slow/
  const release = gate.hold(held)
  const slow = append('slow')
  await gate.held(held)
  const waiting = append('a')
  const system = on.couch.use(on.names.system)
  await system.destroy(id, (await system.get(id))._rev)
  release()
  for (const reply of [await slow, await waiting]) {
    t.equal(reply.statusCode, 404)
    t.match(reply.json(), { code: 'DB_BACKUPS_NOT_FOUND' })
  }
})

t.test('a running backup is not failed by those who append to it all the time', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: extent(600, 2000) }))
  const host = await buildHost(t, { on })
  const { id, finished } = await host.app.dbBackups.start()
  let running = true
  let count = 0
  const writers = Array.from({ length: 8 }, async (_, i) => {
    while (running) {
      await host.app.dbBackups.attach(id, `a${i}`, `${count++}`)
    }
  })
  const summary = await finished.finally(() => {
    running = false
  })
  await Promise.all(writers)
  t.notOk(summary.error)
  t.ok(count > 0)
  t.equal((await host.app.dbBackups.summary(id)).attachments.length, 8)
})

t.test('a running backup takes its turn to write its header', async (t) => {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch })
  const go = gate.hold(/_changes/)
  const { id, finished } = await host.app.dbBackups.start()
  await gate.held(/_changes/)
  const release = gate.hold(/slow/)
  const slow = host.app.dbBackups.attach(id, 'slow', 'x')
  await gate.held(/slow/)
  const before = gate.requests.length
  go()
  await delay(500)
  const headers = () =>
    gate.requests.slice(before).filter((line) => line.startsWith('PUT') && line.endsWith(id))
  t.strictSame(headers(), [], 'it waits')
  release()
  await slow
  t.notOk((await finished).error)
  t.ok(headers().length > 0)
})

t.test('instances that append at the same time wait for each other', async (t) => {
  const { on, id, api } = await setup(t)
  const hosts = await Promise.all([0, 1, 2].map(() => buildHost(t, { on })))
  const appends = hosts.flatMap((host, h) =>
    Array.from({ length: 15 }, (_, i) => host.app.dbBackups.attach(id, `a${h}-${i}`, 'x'))
  )
  await Promise.all(appends)
  t.equal(Object.keys((await api.get(id))._attachments!).length, 45)
})

t.test('the number and the bytes of attachments are bounded, whoever appends', async (t) => {
  const limits = { attachments: 3, attachmentsBytes: 1000, attachmentBytes: 900 }
  const { append, host, id, api } = await setup(t, { limits })
  const refused = async (name: string, data: string, message: RegExp) => {
    const reply = await append(name, data)
    t.equal(reply.statusCode, 413)
    t.match(reply.json(), { code: 'DB_BACKUPS_TOO_LARGE', message })
    await t.rejects(host.app.dbBackups.attach(id, name, data), { statusCode: 413, message })
  }
  await refused('a', 'x'.repeat(901), /larger than 900 bytes/)
  t.equal((await append('a', 'x'.repeat(600))).statusCode, 200)
  await refused('b', 'x'.repeat(401), /has 600 bytes of attachments: limits\.attachmentsBytes allows 1000/)
  t.equal((await append('a', 'y'.repeat(800))).statusCode, 200, 'a replaced attachment does not count')
  t.equal((await append('b', 'x'.repeat(200))).statusCode, 200, 'the limit is allowed')
  t.equal((await append('c', '')).statusCode, 200)
  await refused('d', '', /has 3 attachments: limits\.attachments allows 3/)
  t.equal((await append('c', '')).statusCode, 200, 'one of them may be replaced')
  t.strictSame(Object.keys((await api.get(id))._attachments!).sort(), ['a', 'b', 'c'])
  const more = await buildHost(t, { on: host.on, limits: { attachments: 1 } })
  t.equal(Object.keys((await apiOf(more).get(id))._attachments!).length, 3, 'those with more are read')
  t.equal((await apiOf(more).restore(id)).status, 'success', 'and restored')
})
