import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { readAttachmentBody } from '../lib/routes/attachment-body.js'
import { HeldBytes } from '../lib/spool/held-bytes.js'
import { Room } from '../lib/spool/room.js'
import { apiOf } from './helpers/api.js'
import { character } from './helpers/arbitraries.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { startServer } from './helpers/server-process.js'
import { cases } from './helpers/settings.js'
import { spooledIn } from './helpers/spooled.js'

const MiB = 1024 * 1024

/** Reads the body of an append from pieces. */
async function read(pieces: Iterable<Uint8Array>, limit = MiB): Promise<Buffer> {
  const held = new HeldBytes(new Room(tmpdir(), MiB))
  try {
    await readAttachmentBody(Readable.from(pieces), held, limit)
    const bytes = []
    for await (const piece of held.open()) bytes.push(piece)
    return Buffer.concat(bytes)
  } finally {
    await held.clear()
  }
}

/** Cuts bytes at places given as shares of their length. */
function* cut(bytes: Buffer, places: readonly number[]): Generator<Buffer> {
  const at = places.map((place) => Math.floor(place * bytes.length)).sort((a, b) => a - b)
  for (const [i, end] of [...at, bytes.length].entries()) yield bytes.subarray(at[i - 1] ?? 0, end)
}

/** Spells each character in one of the ways that JSON allows. */
const spelled = fc
  .array(
    fc.tuple(
      fc.oneof(
        fc.string({ unit: character, minLength: 1, maxLength: 1 }),
        fc.integer({ min: 0xd700, max: 0xe100 }).map((unit) => String.fromCharCode(unit)),
        fc.constantFrom('"', '\\', '/', '\n', '\0', 'é', '漢', '😀')
      ),
      fc.constantFrom('raw', 'lower', 'upper')
    ),
    { maxLength: 60 }
  )
  .map((characters) =>
    characters
      .map(([character, how]) => {
        if (how === 'raw') return JSON.stringify(character).slice(1, -1)
        const units = Array.from({ length: character.length }, (_, i) => character.charCodeAt(i).toString(16))
        return units
          .map((unit) => `\\u${(how === 'upper' ? unit.toUpperCase() : unit).padStart(4, '0')}`)
          .join('')
      })
      .join('')
  )

t.test('any string in any pieces gives the bytes that parsing it whole gives', async (t) => {
  const places = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 40 })
  await fc.assert(
    fc.asyncProperty(spelled, places, async (text, places) => {
      const body = `{"attachment":"${text}"}`
      const expected = Buffer.from(JSON.parse(body).attachment as string)
      const bytes = await read(cut(Buffer.from(body), places))
      if (!bytes.equals(expected)) throw new Error(`${body}: ${bytes.toString('hex')}`)
    }),
    { numRuns: cases(500) }
  )
  const body = Buffer.from('\ufeff{"attachment":"\\ud83d\\ude00\\ud83d\\n\\"\\\\\\u00e9漢\\ude00😀\\ud83d"}')
  const expected = Buffer.from('😀\ufffd\n"\\é漢\ufffd😀\ufffd')
  const bytewise = [...body].map((byte) => Buffer.from([byte]))
  t.strictSame(await read(bytewise), expected)
})

t.test('an attachment longer than the memory is the same, too', async (t) => {
  const text = 'é\u0001漢"😀 '.repeat(40_000)
  const body = Buffer.from(JSON.stringify({ attachment: text }))
  t.ok((await read(cut(body, [0.001, 0.1, 0.5]))).equals(Buffer.from(text)))
})

t.test('the last of two members of the same name counts, as in any JSON', async (t) => {
  const long = 'a'.repeat(100_000)
  t.equal((await read([Buffer.from(`{"attachment":"${long}","attachment":"b"}`)])).toString(), 'b')
  t.equal((await read([Buffer.from('{"attachment":1,"attachment":"b"}')])).toString(), 'b')
  await t.rejects(read([Buffer.from('{"attachment":"b","attachment":1}')]), { message: /Expected string/ })
})

/** Returns a body with these members. */
const bodyOf = (members: readonly string[]) => Buffer.from(`{${members.join(',')}}`)
const repeated = (member: string, count: number) => Array<string>(count).fill(member)

t.test('a body of more than 20 members is refused by name, and the rest of it is not read', async (t) => {
  const twenty = [...repeated('"attachment":"a"', 19), '"attachment":"b"']
  t.equal((await read([bodyOf(twenty)])).toString(), 'b', 'twenty members are accepted')
  const unknown = Array.from({ length: 15 }, (_, i) => `"b${i}":{}`)
  const cases: [members: string[], message: RegExp][] = [
    [repeated('"attachment":"a"', 10_000), /^body\/attachment Expected once, found more than 20 times$/],
    [repeated('"attachment":1', 10_000), /^body\/attachment Expected once, found more than 20 times$/],
    [repeated('"b":""', 10_000), /^body\/b Unexpected property$/],
    [[...twenty, ...repeated('"b":""', 10_000)], /^body\/b Unexpected property$/],
    [
      [...unknown, ...repeated('"attachment":"a"', 10_000)],
      /^body\/b0 Unex.*, body\/b14 Unexpected property$/
    ]
  ]
  for (const [members, message] of cases) {
    let sent = 0
    const pieces = function* () {
      const body = bodyOf(members)
      for (; sent < body.length; sent += 100) yield body.subarray(sent, sent + 100)
    }
    await t.rejects(read(pieces()), { statusCode: 400, code: 'FST_ERR_VALIDATION', message }, members[0])
    t.ok(sent < 10_000, `${members[0]}: ${sent} bytes were sent`)
  }
})

t.test('bodies that take long to scan leave the event loop free, however many there are', async (t) => {
  const numbers = Buffer.from(`{"b":[${'1.5,'.repeat(MiB)}1]}`)
  const escapes = Buffer.from(`{"b":"${'\\u00e9'.repeat(MiB / 2)}"}`)
  // Processor time, and the mean of all turns: on a busy machine one turn may take long for reasons of its own.
  const before = process.cpuUsage()
  let turns = 0
  const ticks = setInterval(() => turns++)
  // each body is complete, so that only the reader itself can yield
  const bodies = Array.from({ length: 10 }, (_, i) => read([i % 2 ? numbers : escapes]))
  const results = await Promise.allSettled(bodies)
  clearInterval(ticks)
  const { user, system } = process.cpuUsage(before)
  const mean = (user + system) / 1000 / turns
  t.strictSame(new Set(results.map(({ status }) => status)), new Set(['rejected']))
  // 6 where nothing else runs; 40 if each body took turns of its own.
  t.ok(mean <= 25, `${turns} turns of ${mean.toFixed(1)} ms`)
})

/** Refused bodies, with the messages of Fastify's own parser and validation. */
const REFUSED: [body: string | Buffer, message: RegExp][] = [
  ['', /^body Expected object$/],
  ['{}', /^body\/attachment Expected required property, body\/attachment Expected string$/],
  ['[]', /^body Expected object$/],
  ['"x"', /^body Expected object$/],
  ['{"attachment":true}', /^body\/attachment Expected string$/],
  ['{"attachment":{"attachment":"x"}}', /^body\/attachment Expected string$/],
  ['{"attachment":"x","b":1,"c":[]}', /^body\/b Unexpected property, body\/c Unexpected property$/],
  ['{"attachment":1,"b":2}', /^body\/b Unexpected property, body\/attachment Expected string$/],
  ['{"attachment":"x","a~/b":1}', /^body\/a~0~1b Unexpected property$/],
  ['{"attachment":"x"', /not valid JSON/],
  ['{"attachment":"x"}}', /not valid JSON/],
  ['{"attachment":"\\x"}', /not valid JSON/],
  ['{"attachment":"\\u12"}', /not valid JSON/],
  ['{"attachment":"\n"}', /not valid JSON/],
  ['{"attachment":"x","__proto__":1}', /not valid JSON/],
  [Buffer.from('{"attachment":"\xff"}', 'latin1'), /not valid JSON/],
  [Buffer.from('{"attachment":"x"}', 'utf16le'), /not valid JSON/],
  [`{"attachment":"x","a":${'['.repeat(5000)}`, /not valid JSON/]
]

t.test('a body that is not as described is refused in the words of Fastify', async (t) => {
  const spoolDirectory = t.testdir()
  const host = await buildHost(t, { spoolDirectory })
  const api = apiOf(host)
  const id = await api.backup()
  for (const [body, message] of REFUSED) {
    const reply = await api.call('PUT', `/${id}/attachments/a`, body, { 'content-type': 'application/json' })
    t.equal(reply.statusCode, 400, String(body).slice(0, 40))
    t.match(reply.json().message, message)
  }
  t.notOk('_attachments' in (await api.get(id)))
  t.strictSame(await spooledIn(spoolDirectory), [])
})

async function listening(t: Test, options: HostOptions = {}) {
  const spoolDirectory = t.testdir()
  const host = await buildHost(t, { spoolDirectory, ...options })
  const id = await apiOf(host).backup()
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  return { host, id, port, room: new Room(spoolDirectory, Number.MAX_SAFE_INTEGER) }
}

t.test('a client that breaks off while it sends leaves nothing behind', async (t) => {
  const { host, id, port, room } = await listening(t)
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  const head = `PUT /api/v1/backups/${id}/attachments/a HTTP/1.1\r\nhost: x\r\nx-role: manager\r\ncontent-type: application/json\r\n`
  socket.write(`${head}content-length: 2000000\r\n\r\n{"attachment":"${'x'.repeat(MiB)}`)
  await poll('the spool', () => room.reserved || undefined)
  socket.destroy()
  await poll('the room', () => (room.reserved === 0 ? true : undefined))
  t.notOk('_attachments' in (await apiOf(host).get(id)))
})

t.test(
  'an attachment that is too large is refused before all of it has arrived, and its room is free',
  async (t) => {
    const { host, id, port, room } = await listening(t, { limits: { attachmentBytes: 100_000 } })
    const sent = { bytes: 0 }
    const body = Readable.from(
      (function* () {
        yield Buffer.from('{"attachment":"')
        for (let i = 0; i < 260; i++) {
          sent.bytes += 1000
          yield Buffer.from('x'.repeat(1000))
        }
        yield Buffer.from('"}')
      })()
    )
    const reply = await fetch(`http://127.0.0.1:${port}/api/v1/backups/${id}/attachments/a`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json', ...host.as('manager') },
      body: Readable.toWeb(body) as ReadableStream,
      duplex: 'half'
    } as RequestInit)
    t.equal(reply.status, 413)
    t.match(await reply.json(), { message: 'body/attachment is larger than 100000 bytes' })
    t.equal(room.reserved, 0)
  }
)

t.test('an append takes its room from that for uploads', async (t) => {
  const { host, id, room } = await listening(t, { limits: { spoolBytes: 50_000 } })
  const api = apiOf(host)
  const refused = await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x'.repeat(60_000) })
  t.equal(refused.statusCode, 507)
  t.match(refused.json(), { code: 'DB_BACKUPS_INSUFFICIENT_STORAGE', message: /limits\.spoolBytes/ })
  t.equal(room.reserved, 0)
  const stored = await api.call('PUT', `/${id}/attachments/a`, { attachment: 'x'.repeat(40_000) })
  t.equal(stored.statusCode, 200)
  t.equal(room.reserved, 0)
})

t.test('ten bodies of 25 MiB in small members are refused while a list is answered', async (t) => {
  const { url, names } = await setupDatabases(t)
  // in a process of its own, since this one is busy sending
  const server = await startServer(t, { url, databases: names })
  const { id } = (await server.post('')).json
  await poll('the backup', async () => ((await server.get(`/${id}`)).json.in_progress ? undefined : true))
  for (const [member, message] of [
    ['"attachment":"a"', /^body\/attachment Expected once/],
    ['"b":""', /^body\/b Unexpected property$/]
  ] as const) {
    const body = bodyOf(repeated(member, Math.floor((25 * MiB) / (member.length + 1))))
    const append = async (_: unknown, i: number) => {
      const headers = { 'content-type': 'application/json' }
      const to = `${server.origin}/api/v3/backups/${id}/attachments/a${i}`
      const reply = await fetch(to, { method: 'PUT', headers, body })
      t.equal(reply.status, 400)
      t.match(await reply.json(), { message })
    }
    await server.measure()
    let waiting = true
    const appends = Promise.all(Array.from({ length: 10 }, append)).finally(() => {
      waiting = false
    })
    let longest = 0
    do {
      const from = performance.now()
      t.equal((await server.get('')).status, 200)
      longest = Math.max(longest, performance.now() - from)
    } while (waiting)
    await appends
    const { turn } = await server.measure()
    t.comment(`${member}: slowest list ${Math.round(longest)} ms, longest turn ${Math.round(turn)} ms`)
    t.ok(longest < 5000, `the slowest list took ${longest} ms`)
    // 25 on a machine that is not busy.
    t.ok(turn <= 100, `the longest turn took ${turn} ms`)
  }
  t.notOk('_attachments' in (await server.get(`/${id}`)).json)
})
