import { once } from 'node:events'
import { connect as connectHttp2, constants } from 'node:http2'
import { type AddressInfo, connect } from 'node:net'
import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises'
import { createGunzip, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { cases } from './helpers/settings.js'
import { spooledIn } from './helpers/spooled.js'

const MARK = Buffer.from([0xef, 0xbb, 0xbf])
const GZIP = { 'content-encoding': 'gzip' }
const ID = '03_ibp_db_backup_1592922855871'

async function setup(t: Test, options: HostOptions = {}) {
  const spoolDirectory = t.testdir()
  const host = await buildHost(t, { spoolDirectory, ...options })
  const api = apiOf(host)
  /** Removes revisions, since the database gives uploaded documents its own. */
  const components = async () => {
    const all = await host.on.fetchAll(host.on.names.components)
    return new Map([...all].map(([id, { _rev, ...document }]) => [id, document]))
  }
  /** Uploads a backup, and waits for the end of the restore. */
  const upload = async (payload: Buffer, headers: Record<string, string> = {}) => {
    const reply = await api.call('PUT', '', payload, headers)
    if (reply.statusCode !== 202) return { reply, tx: undefined }
    return { reply, tx: await host.waitForRestore(reply.json().url) }
  }
  const untouched = async (t: Test) => {
    t.equal((await components()).size, 0, 'nothing was written')
    t.strictSame(await spooledIn(spoolDirectory), [], 'nothing is left on the disk')
  }
  return { host, api, components, upload, untouched }
}

const backup = (...ids: string[]) =>
  Buffer.from(JSON.stringify(backupOf(ids.map((_id) => ({ _id, text: 'ü漢' })))))

t.test('a byte order mark before UTF-8 is skipped', async (t) => {
  const { host, components, upload, untouched } = await setup(t)
  const { reply } = await upload(Buffer.concat([MARK, MARK, backup('twice')]))
  t.equal(reply.statusCode, 400, 'but not two of them')
  await untouched(t)
  t.equal((await upload(Buffer.concat([MARK, backup('marked')]))).tx?.status, 'success')
  t.equal((await upload(gzipSync(Buffer.concat([MARK, backup('zipped')])), GZIP)).tx?.status, 'success')
  const bytes = [...Buffer.concat([MARK, backup('by the byte')])].map((byte) => Buffer.from([byte]))
  const { finished } = await host.app.dbBackups.restore({ body: Readable.from(bytes, { objectMode: false }) })
  t.match(await finished, { databases: { components: { created: 1 } } })
  const text = (await host.app.dbBackups.restore({ body: Readable.from([`\ufeff${backup('a text')}`]) }))
    .finished
  t.match(await text, { databases: { components: { created: 1 } } })
  t.strictSame([...(await components()).keys()], ['a text', 'by the byte', 'marked', 'zipped'])
})

const utf16 = (text: string) => Buffer.from(text, 'utf16le')
function utf32(text: string): Buffer {
  const bytes = Buffer.alloc(4 * [...text].length)
  for (const [i, c] of [...text].entries()) bytes.writeUInt32LE(c.codePointAt(0)!, 4 * i)
  return bytes
}
const OTHER_ENCODINGS: Record<string, (text: string) => Buffer> = {
  'UTF-16 (little endian)': utf16,
  'UTF-16 (big endian)': (text) => utf16(text).swap16(),
  'UTF-32 (little endian)': utf32,
  'UTF-32 (big endian)': (text) => utf32(text).swap32()
}

t.test('UTF-16 and UTF-32 are refused by name', async (t) => {
  const { host, upload, untouched } = await setup(t)
  for (const [name, encode] of Object.entries(OTHER_ENCODINGS)) {
    for (const mark of ['', '\ufeff']) {
      for (const space of ['', '\r\n']) {
        const bytes = encode(`${mark}${space}${backup('a')}`)
        const message = `the body is ${name}: send JSON in UTF-8`
        const { reply } = await upload(bytes)
        t.equal(reply.statusCode, 400)
        t.equal(reply.json().message, message)
        const pieces = [...bytes].map((byte) => Buffer.from([byte]))
        const body = Readable.from(pieces, { objectMode: false })
        await t.rejects(host.app.dbBackups.restore({ body }), { statusCode: 400, message })
      }
    }
  }
  const zip = await upload(Buffer.from('PK\u0003\u0004 and more', 'latin1'))
  t.equal(zip.reply.json().message, 'the body is a ZIP archive: send JSON in UTF-8')
  const unsaid = await upload(gzipSync(backup('a')))
  t.equal(unsaid.reply.statusCode, 400)
  t.match(unsaid.reply.json().message, /^the body is gzip without "Content-Encoding: gzip"/)
  await untouched(t)
})

t.test('gzip is inflated as it arrives', async (t) => {
  const { host, api, components, upload } = await setup(t)
  const whole = backup(...Array.from({ length: 300 }, (_, i) => `doc_${i}`))
  const spellings: Record<string, [Buffer, string]> = {
    'as it is': [gzipSync(whole), 'gzip'],
    'by its old name': [gzipSync(whole), 'x-gzip'],
    'in capitals': [gzipSync(whole), ' GZip '],
    'in several members': [
      Buffer.concat(
        [0, 1, 2].map((i) => gzipSync(whole.subarray(i * 5000, i === 2 ? undefined : (i + 1) * 5000)))
      ),
      'gzip'
    ],
    'not compressed': [gzipSync(whole, { level: 0 }), 'gzip']
  }
  for (const [what, [bytes, encoding]] of Object.entries(spellings)) {
    const { tx } = await upload(bytes, { 'content-encoding': encoding })
    t.match(tx, { status: 'success', databases: { components: { total: 300, failed: 0 } } }, what)
  }
  const before = await components()
  t.equal(before.size, 300)

  const id = await api.backup()
  const download = await api.call('GET', `/${id}`)
  await host.on.couch.db.destroy(host.on.names.components)
  const { tx } = await upload(gzipSync(download.rawPayload), GZIP)
  t.match(tx, { status: 'success', databases: { components: { created: 300 } } })
  t.strictSame(await components(), before)
})

t.test(
  'a body that is not gzip, is cut off or has more after its end is refused, however it arrives',
  async (t) => {
    const { api, untouched } = await setup(t)
    const good = gzipSync(backup('a', 'b'), { level: 9 })
    const damages: Record<string, fc.Arbitrary<Buffer>> = {
      cut: fc.integer({ min: 1, max: good.length - 1 }).map((at) => good.subarray(0, at)),
      'with more': fc.uint8Array({ minLength: 1, maxLength: 50 }).map((more) => Buffer.concat([good, more])),
      'with zeros': fc
        .integer({ min: 1, max: 9000 })
        .map((count) => Buffer.concat([good, Buffer.alloc(count)])),
      changed: fc.integer({ min: 10, max: good.length - 1 }).map((at) => {
        const changed = Buffer.from(good)
        changed[at]! ^= 0x55
        return changed
      }),
      none: fc.uint8Array({ minLength: 1, maxLength: 100 }).map((bytes) => Buffer.from(bytes))
    }
    for (const [what, bytes] of Object.entries(damages)) {
      await fc.assert(
        fc.asyncProperty(bytes, async (payload) => {
          const { statusCode, body } = await api.call('PUT', '', payload, GZIP)
          if (statusCode !== 400) throw new Error(`${statusCode} ${body}`)
        }),
        { numRuns: cases(20) }
      )
      t.pass(what)
    }
    for (const [payload, message] of [
      [good.subarray(0, -1), 'the body cannot be inflated: unexpected end of file'],
      [Buffer.concat([good, Buffer.from('more')]), 'the body cannot be inflated: incorrect header check'],
      [Buffer.concat([good, Buffer.alloc(512)]), 'the body holds data after what was compressed'],
      [backup('a'), 'the body is not gzip, as content-encoding says'],
      [gzipSync(good), 'the body is gzip without "Content-Encoding: gzip": send JSON in UTF-8'],
      [gzipSync(''), 'the body is truncated: unexpected end of JSON at byte 0']
    ] as const) {
      t.equal((await api.call('PUT', '', payload as Buffer, GZIP)).json().message, message)
    }
    await untouched(t)
  }
)

t.test('received and inflated bytes are bounded', async (t) => {
  const uploadBytes = 2_000_000
  const { host, upload, untouched } = await setup(t, { limits: { uploadBytes } })
  const spaces = (bytes: number) => gzipSync(`{"dbs":{}}${' '.repeat(bytes - 10)}`)
  const tooMuch = await upload(spaces(uploadBytes + 1), GZIP)
  t.equal(tooMuch.reply.statusCode, 413)
  t.equal(tooMuch.reply.json().message, `the body inflates to more than ${uploadBytes} bytes`)
  t.equal((await upload(spaces(uploadBytes), GZIP)).tx?.status, 'success', 'the limit itself is allowed')

  const received = await upload(gzipSync(Buffer.alloc(uploadBytes + 1, ' '), { level: 0 }), GZIP)
  t.equal(received.reply.statusCode, 413)
  t.equal(received.reply.json().message, `the body is larger than ${uploadBytes} bytes`)

  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const startedAt = performance.now()
  const bomb = Readable.from(Array(100).fill(gzipSync(Buffer.alloc(20_000_000, ' '))))
  const reply = await fetch(`${host.app.listeningOrigin}/api/v1/backups`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json', ...GZIP, ...host.as('manager') },
    body: Readable.toWeb(bomb) as ReadableStream,
    duplex: 'half'
  } as RequestInit)
  t.equal(reply.status, 413, 'members without end')
  t.ok(performance.now() - startedAt < 3000, 'are not inflated to their end')
  await untouched(t)
})

t.test('silence has a bound, before inflating and after', async (t) => {
  const idle = 300
  const { host, untouched } = await setup(t, { timeouts: { idle } })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  const send = async (pieces: AsyncIterable<Buffer>) => {
    const socket = connect(port, '127.0.0.1')
    let text = ''
    socket.on('data', (piece) => {
      text += piece
    })
    socket.on('error', () => undefined)
    const head =
      'PUT /api/v1/backups HTTP/1.1\r\nhost: x\r\nx-role: manager\r\ncontent-type: application/json'
    socket.write(`${head}\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n`)
    for await (const piece of pieces) {
      // read the reply first: a write to the closed connection would lose it
      await turn()
      if (socket.destroyed || text !== '') break
      socket.write(`${piece.length.toString(16)}\r\n`)
      socket.write(piece)
      socket.write('\r\n')
    }
    if (!socket.closed) await once(socket, 'close')
    return text
  }
  const gzipped = gzipSync(backup('a'))
  const half = await send(Readable.from([gzipped.subarray(0, gzipped.length >> 1)]))
  t.match(half, /^HTTP\/1\.1 408 /, 'half a body')
  // empty blocks of gzip: much arrives and decompresses to nothing
  const nothing = Buffer.concat(Array(1000).fill(Buffer.from([0, 0, 0, 0xff, 0xff])))
  const empty = await send(
    (async function* () {
      yield gzipped.subarray(0, 10)
      for (let i = 0; i < 200; i++) {
        yield nothing
        await delay(20)
      }
    })()
  )
  t.match(empty, /^HTTP\/1\.1 408 /, 'a body that inflates to nothing')
  await untouched(t)
})

t.test('small bodies may be gzip, and have a mark, as well', async (t) => {
  const { host, api } = await setup(t)
  const id = await api.backup()
  const mark = '\ufeff'
  const calls: [string, 'POST' | 'PUT', string, string, number][] = [
    ['start', 'POST', '', '{}', 202],
    ['append', 'PUT', `/${id}/attachments/notes`, JSON.stringify({ attachment: 'ü'.repeat(1000) }), 200],
    ['restore', 'PUT', `/${id}`, '{"client_webhook_url":"http://127.0.0.1:9/"}', 202]
  ]
  for (const [what, method, path, text, status] of calls) {
    for (const [how, payload, headers] of [
      ['gzip', gzipSync(text), GZIP],
      ['a mark', Buffer.from(mark + text), {}],
      ['both', gzipSync(mark + text), GZIP]
    ] as const) {
      const reply = await api.call(method, path, payload, headers)
      t.equal(reply.statusCode, status, `${what}, ${how}: ${reply.body}`)
      const { url, id } = reply.json()
      if (what === 'restore') await host.waitForRestore(url)
      if (what === 'start') await host.waitForBackup(id)
    }
    const cut = await api.call(method, path, gzipSync(text).subarray(0, -1), GZIP)
    t.equal(cut.statusCode, 400, `${what}, cut`)
    const utf = await api.call(method, path, utf16(text))
    t.equal(utf.statusCode, 400, `${what}, UTF-16`)
    const bomb = await api.call(method, path, gzipSync(`{"a":"${' '.repeat(80_000_000)}"}`), GZIP)
    t.equal(bomb.statusCode, 413, `${what}, too much: ${bomb.body}`)
  }
  const stored = await host.on.couch.use(host.on.names.system).attachment.get(id, 'notes')
  t.equal(stored.toString(), 'ü'.repeat(1000))
})

t.test('other encodings are refused on every route, with those that are not', async (t) => {
  const { api, untouched } = await setup(t)
  for (const [method, path] of [
    ['POST', ''],
    ['PUT', ''],
    ['PUT', `/${ID}`],
    ['PUT', `/${ID}/attachments/a`]
  ] as const) {
    for (const encoding of ['deflate', 'br', 'gzip, gzip', 'gzip,', 'x']) {
      const reply = await api.call(method, path, '{}', { 'content-encoding': encoding })
      t.equal(reply.statusCode, 415, `${method} ${path} ${encoding}`)
      t.equal(reply.headers['accept-encoding'], 'gzip')
      t.match(reply.json(), { code: 'DB_BACKUPS_ENCODING', message: /content encoding/ })
    }
  }
  await untouched(t)
})

t.test('a host whose hooks have had the body is no hindrance', async (t) => {
  const inflating = (payload: Readable, into = (inflated: Readable) => inflated) => {
    let receivedEncodedLength = 0
    payload.on('data', (piece: Buffer) => {
      receivedEncodedLength += piece.length
    })
    const get = () => receivedEncodedLength
    return Object.defineProperty(into(payload.pipe(createGunzip())), 'receivedEncodedLength', { get })
  }
  const textOf = async function* (payload: Readable) {
    yield await text(payload)
  }
  const hooks: Record<string, (payload: Readable) => Readable> = {
    'that inflates it': (payload) => inflating(payload),
    'that looks on': (payload) => payload.pipe(new PassThrough()),
    'that inflates it to text': (payload) => inflating(payload, (inflated) => inflated.setEncoding('utf8')),
    'that gives text of its own': (payload) =>
      inflating(payload, (inflated) => Readable.from(textOf(inflated)))
  }
  for (const [what, through] of Object.entries(hooks)) {
    const { host, upload, api, components } = await setup(t, {
      extend: (app) =>
        app.addHook('preParsing', async (request, _reply, payload) =>
          request.headers['content-encoding'] ? (through(payload as Readable) as typeof payload) : payload
        )
    })
    const { reply, tx } = await upload(gzipSync(backup('a')), GZIP)
    t.equal(tx?.status, 'success', `a hook ${what}: ${reply.body}`)
    t.ok((await components()).has('a'))
    const id = await api.backup()
    const attachment = gzipSync(JSON.stringify({ attachment: 'x' }))
    const appended = await api.call('PUT', `/${id}/attachments/a`, attachment, GZIP)
    t.equal(appended.statusCode, 200, `a hook ${what}: ${appended.body}`)
    const restored = await api.call('PUT', `/${id}`, gzipSync('{}'), GZIP)
    t.equal(restored.statusCode, 202, `a hook ${what}: ${restored.body}`)
    t.equal((await host.waitForRestore(restored.json().url)).status, 'success')
  }
})

t.test('over HTTP/2 too, and a refusal arrives', async (t) => {
  const { host } = await setup(t, { server: { http2: true } as object })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const session = connectHttp2(`http://127.0.0.1:${(host.app.server.address() as AddressInfo).port}`)
  t.teardown(() => session.close())
  const send = async (payload: Buffer, headers: Record<string, string>) => {
    const request = { ':method': 'PUT', ':path': '/api/v1/backups', 'x-role': 'manager' }
    const stream = session.request({ ...request, 'content-type': 'application/json', ...headers })
    stream.end(payload)
    const [replied] = await once(stream, 'response')
    let text = ''
    for await (const piece of stream) text += piece
    t.equal(stream.rstCode, constants.NGHTTP2_NO_ERROR)
    return { status: replied[':status'], headers: replied, json: JSON.parse(text) }
  }
  const refused = await send(Buffer.alloc(3_000_000, ' '), { 'content-encoding': 'br' })
  t.match(refused, { status: 415, headers: { 'accept-encoding': 'gzip' } })
  t.match(await send(Buffer.alloc(3_000_000, 'x'), {}), {
    status: 400,
    json: { message: /^the body is not JSON/ }
  })
  const { status, json } = await send(gzipSync(backup('a')), GZIP)
  t.equal(status, 202)
  t.equal((await host.waitForRestore(json.url)).status, 'success')
})

t.test('a download that a tool has written anew is read as it was', async (t) => {
  const { host, api, upload, components } = await setup(t)
  const docs = [
    {
      _id: 'ü "quoted" \u0000 \\',
      text: 'ü漢😀\u0000\u001f\u007f\u2028',
      n: [1, 1.5, -0.25],
      empty: { '': null }
    },
    { _id: '_design/x', views: { v: { map: 'function (doc) {\n  emit(doc._id)\n}' } } },
    { _id: 'attached', _attachments: { 'a b': { content_type: 'image/png', data: 'AAEC' } } }
  ]
  await upload(Buffer.from(JSON.stringify(backupOf(docs))))
  const before = await components()
  t.equal(before.size, 3)
  const id = await api.backup()
  const download = (await api.call('GET', `/${id}`)).body
  const parsed = JSON.parse(download)
  const escaped = (text: string) =>
    text.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
  const backwards = (value: unknown): unknown => {
    if (Array.isArray(value)) return value
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value)
        .reverse()
        .map(([key, inner]) => [key, backwards(inner)])
    )
  }
  const rewritten: Record<string, string | Buffer> = {
    'a line feed at its end': `${download}\n`,
    'much white space around': `${'\r\n\t '.repeat(5000)}${download}${' \r\n'.repeat(5000)}`,
    'pretty printed': JSON.stringify(parsed, null, 2),
    'with CR LF': JSON.stringify(parsed, null, '\t').replaceAll('\n', '\r\n'),
    'all escaped': escaped(download),
    'solidi escaped': download.replaceAll('/', '\\/'),
    'members in another order': JSON.stringify(backwards(parsed)),
    'by Windows Notepad': Buffer.concat([MARK, Buffer.from(download.replaceAll('","', '",\r\n"'))])
  }
  for (const [what, text] of Object.entries(rewritten)) {
    await host.on.couch.db.destroy(host.on.names.components)
    const { reply, tx } = await upload(Buffer.from(text as string))
    t.match(tx, { status: 'success', databases: { components: { created: 3 } } }, `${what}: ${reply.body}`)
    t.same(await components(), before, what)
  }
  for (const end of ['\0', '\u001a', ',', '}', '{}', '\ufeff']) {
    const { reply } = await upload(Buffer.from(download + end))
    t.equal(reply.statusCode, 400, `and then ${JSON.stringify(end)}`)
    t.match(reply.json().message, /unexpected data after the JSON value at byte \d+/)
  }
})
