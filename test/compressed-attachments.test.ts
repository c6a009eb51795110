import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import nano from 'nano'
import t, { type Test } from 'tap'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { type Api, apiOf } from './helpers/api.js'
import { putAttachment, setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { setupRawDatabases } from './helpers/raw-databases.js'
import { bytesOf } from './helpers/seed.js'
import { extent } from './helpers/settings.js'

const TYPES = [
  'text/plain',
  'text/plain; charset=utf-8',
  'application/json',
  'application/javascript',
  'application/xml',
  'image/svg+xml',
  'image/png'
]
/** Sizes of every type: read at once, and the last one in pieces. */
const SIZES = [0, 1, 1000, LARGE_DOCUMENT + 1]
/** The last sizes that are read at once: of one type that is stored compressed, and of one that is not. */
const EDGES = ['text/plain', 'image/png'].flatMap((type) =>
  [LARGE_DOCUMENT - 1, LARGE_DOCUMENT].map((size) => [type, size] as const)
)

const text = (length: number) => Buffer.alloc(length, 'x')
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

/** Servers that compress attachments as CouchDB does: the raw server, and `COUCHDB_URL`. */
const setups: Record<string, (t: Test) => Promise<TestDatabases>> = { imitated: setupRawDatabases }
if (process.env.COUCHDB_URL) setups.CouchDB = setupDatabases

type Attachments = Record<string, { content_type: string; data: Buffer }>

/** Returns the attachments of a backup's documents, to compare them. */
async function attachedIn(api: Api, id: string): Promise<Record<string, object>> {
  const backup = await api.get(id)
  if (backup.unreadable_count) throw new Error(JSON.stringify(backup.dbs.athena_components!.unreadable))
  const documents = backup.dbs.athena_components!.docs.map(({ _id, _attachments = {} }) => {
    const entries = Object.entries(_attachments).map(([name, { content_type, data }]) => {
      return [name, describe(content_type, Buffer.from(data, 'base64'))]
    })
    return [_id, Object.fromEntries(entries)]
  })
  return Object.fromEntries(documents)
}

const describe = (contentType: string, data: Buffer) => [contentType, data.length, sha256(data)]

const expectedOf = (documents: Record<string, Attachments>) =>
  Object.fromEntries(Object.entries(documents).map(([id, attachments]) => [id, expected(attachments)]))

const expected = (attachments: Attachments) =>
  Object.fromEntries(
    Object.entries(attachments).map(([name, { content_type, data }]) => {
      return [name, describe(content_type, data)]
    })
  )

for (const [database, setup] of Object.entries(setups)) {
  t.test(`${database}: attachments of every type are backed up at every size`, async (t) => {
    const on = await setup(t)
    const documents: Record<string, Attachments> = {
      'a large image beside a short text': {
        image: { content_type: 'image/png', data: bytesOf('image', 5_000_000) },
        text: { content_type: 'text/plain', data: text(23) }
      }
    }
    // In pieces, the short version reads every third type: two that are stored compressed, and one that is not.
    const isRead = (type: number, size: number) => size <= LARGE_DOCUMENT || type % extent(3, 1) === 0
    const cases = TYPES.flatMap((type, i) =>
      SIZES.filter((size) => isRead(i, size)).map((size) => [type, size] as const)
    )
    for (const [content_type, size] of [...cases, ...EDGES])
      documents[`${size} ${content_type}`] = { a: { content_type, data: text(size) } }
    const db = on.couch.use(on.names.components)
    for (const [_id, attachments] of Object.entries(documents)) {
      const inline = Object.entries(attachments).map(([name, { content_type, data }]) => {
        return [name, { content_type, data: data.toString('base64') }]
      })
      await db.insert({ _id, _attachments: Object.fromEntries(inline) } as never)
    }
    const api = apiOf(await buildHost(t, { on }))
    t.strictSame(await attachedIn(api, await api.backup()), expectedOf(documents))
  })

  t.test(`${database}: what a client sent compressed is backed up as what it decompresses to`, async (t) => {
    const on = await setup(t)
    const sizes = { small: 1000, 'larger than what is held in memory': LARGE_DOCUMENT * extent(1.5, 3) }
    const documents: Record<string, Attachments> = {}
    for (const [what, size] of Object.entries(sizes)) {
      for (const content_type of ['text/plain', 'image/png']) {
        const document = `${what} ${content_type}`
        const headers = { 'content-type': content_type, 'content-encoding': 'gzip' }
        await putAttachment(on.url, [on.names.components, document, 'a'], gzipSync(text(size)), headers)
        documents[document] = { a: { content_type, data: text(size) } }
      }
    }
    const api = apiOf(await buildHost(t, { on }))
    t.strictSame(await attachedIn(api, await api.backup()), expectedOf(documents))
  })

  t.test(`${database}: appended attachments of every type are sent, from any byte on`, async (t) => {
    const on = await setup(t)
    const host = await buildHost(t, { on })
    const api = apiOf(host)
    const id = await api.backup()
    const appended: Record<string, string> = {}
    for (const contentType of TYPES) {
      for (const size of [0, 1, 100_000]) {
        const name = `${size} ${contentType}`
        const data = text(size)
        await host.app.dbBackups.attach(id, name, data, { contentType })
        await host.app.dbBackups.attach(id, name, data, { contentType })
        appended[name] = data.toString('base64')
      }
    }
    const whole = (await api.call('GET', `/${id}`)).rawPayload
    t.strictSame(JSON.parse(whole.toString())._attachments, appended)
    for (const start of [1, whole.length >> 1, whole.length - 150_000, whole.length - 1]) {
      const reply = await api.call('GET', `/${id}`, undefined, { range: `bytes=${start}-` })
      t.equal(reply.statusCode, 206)
      t.ok(reply.rawPayload.equals(whole.subarray(start)), `from ${start} of ${whole.length}`)
    }
  })

  t.test(
    `${database}: an attachment that was put to a header compressed is sent as what it is`,
    async (t) => {
      const on = await setup(t)
      const databases = { ...on.names, backups: on.names.system }
      const api = apiOf(await buildHost(t, { on, databases }))
      const id = await api.backup()
      const { _rev: rev } = await on.couch.use(on.names.system).get(id)
      const headers = { 'content-type': 'text/plain', 'content-encoding': 'gzip' }
      await putAttachment(on.url, [on.names.system, id, 'a'], gzipSync(text(5000)), headers, rev)
      t.strictSame((await api.get(id))._attachments, { a: text(5000).toString('base64') })
    }
  )
}

/** Changes an attachment on its way. May change `headers` as well. */
type Change = (body: Buffer, headers: Record<string, string>) => Buffer

/** Starts a proxy that changes attachments which may be sent compressed. */
type IsChanged = (request: IncomingMessage) => boolean

async function startProxy(
  t: Test,
  target: string,
  change: Change,
  isChanged: IsChanged = ({ headers }) => headers['accept-encoding'] === 'gzip'
): Promise<string> {
  const serve: RequestListener = async (request, response) => {
    const headers = new Headers(request.headers as Record<string, string>)
    for (const name of HOP_HEADERS) headers.delete(name)
    const body = ['GET', 'HEAD'].includes(request.method ?? '') ? undefined : await buffer(request)
    const answer = await fetch(new URL(request.url ?? '/', target), { method: request.method, headers, body })
    const told = Object.fromEntries(answer.headers)
    // fetch has decompressed it
    for (const name of [...HOP_HEADERS, 'content-encoding']) delete told[name]
    const received = Buffer.from(await answer.arrayBuffer())
    const sent = isChanged(request) ? change(received, told) : received
    response.writeHead(answer.status, told)
    response.end(request.method === 'HEAD' ? undefined : sent)
  }
  const server = createServer((request, response) => {
    // the client has closed its connection
    Promise.resolve(serve(request, response)).catch(() => request.socket.destroy())
  })
  return await listen(t, server)
}

const HOP_HEADERS = ['connection', 'content-length', 'host', 'transfer-encoding']

t.test('a proxy may decompress attachments, compress them anew, or compress others', async (t) => {
  const on = await setupRawDatabases(t)
  const documents: Record<string, Attachments> = {
    text: { a: { content_type: 'text/plain', data: text(LARGE_DOCUMENT + 1) } },
    image: { a: { content_type: 'image/png', data: text(LARGE_DOCUMENT + 1) } }
  }
  for (const [_id, { a }] of Object.entries(documents)) {
    const inline = { content_type: a!.content_type, data: a!.data.toString('base64') }
    await on.write(on.names.components, [JSON.stringify({ _id, _attachments: { a: inline } })])
  }
  const compressed = (body: Buffer, headers: Record<string, string>, etag: string | undefined) => {
    headers['content-encoding'] = 'gzip'
    if (etag === undefined) delete headers.etag
    else headers.etag = etag
    return gzipSync(body, { level: 1 })
  }
  const proxies: Record<string, Change> = {
    decompresses: (body) => body,
    'compresses, with a weak tag': (body, headers) => compressed(body, headers, `W/${headers.etag}`),
    'compresses, without a tag': (body, headers) => compressed(body, headers, undefined)
  }
  for (const [what, change] of Object.entries(proxies)) {
    const couch = nano(await startProxy(t, on.url, change))
    const api = apiOf(await buildHost(t, { on: { ...on, couch } }))
    t.strictSame(await attachedIn(api, await api.backup()), expectedOf(documents), what)
  }
})

t.test('an attachment that came with another byte is not backed up', async (t) => {
  const on = await setupRawDatabases(t)
  const inline = { content_type: 'image/png', data: text(LARGE_DOCUMENT + 1).toString('base64') }
  await on.write(on.names.components, [
    JSON.stringify({ _id: 'image', _attachments: { a: inline } }),
    '{"_id":"other"}'
  ])
  const damage: Change = (body) => {
    body[1000] = 0
    return body
  }
  const couch = nano(await startProxy(t, on.url, damage, ({ url }) => /\/image\/a/.test(url ?? '')))
  const api = apiOf(await buildHost(t, { on: { ...on, couch }, retry: { attempts: 2, wait: 1 } }))
  const { docs, unreadable } = (await api.get(await api.backup())).dbs.athena_components!
  t.strictSame(
    docs.map(({ _id }) => _id),
    ['other']
  )
  t.strictSame(unreadable, [{ id: 'image', reason: 'bad_answer: the bytes have another digest' }])
})
