import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http'
import { type ClientHttp2Stream, connect, constants } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pipeline, Readable } from 'node:stream'
import { createGzip } from 'node:zlib'
import t, { type Test } from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { bytesOf, load } from './helpers/seed.js'

/** How a download ended. */
interface Ended {
  status: number
  headers: Record<string, unknown>
  /** The bytes that arrived. */
  bytes: number
  text: string
  /** Whether the protocol declared the body complete. */
  complete: boolean
  /** Why an HTTP/2 stream was reset. */
  rstCode?: number
}

type Download = (origin: string, path: string, headers?: Record<string, string>) => Promise<Ended>

async function readAll(body: Readable, complete: () => boolean) {
  const pieces: Buffer[] = []
  let failed = false
  body.on('data', (piece: Buffer) => pieces.push(piece))
  body.on('error', () => {
    failed = true
  })
  await new Promise<void>((resolve) => body.once('close', resolve))
  const whole = Buffer.concat(pieces)
  return { bytes: whole.length, text: whole.toString(), complete: !failed && complete() }
}

const byHttp1: Download = async (origin, path, headers) => {
  const options = { headers: { 'x-role': 'manager', ...headers }, agent: false }
  const request: ClientRequest = origin.startsWith('https')
    ? httpsRequest(origin + path, { ...options, rejectUnauthorized: false })
    : httpRequest(origin + path, options)
  request.on('error', () => undefined)
  request.end()
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const body = await readAll(response, () => response.complete)
  return { status: response.statusCode!, headers: response.headers, ...body }
}

const byHttp2: Download = async (origin, path, headers) => {
  const session = connect(origin, { rejectUnauthorized: false })
  const stream: ClientHttp2Stream = session.request({ ':path': path, 'x-role': 'manager', ...headers })
  let replied: Record<string, unknown> = {}
  stream.on('response', (received) => {
    replied = received
  })
  const body = await readAll(stream, () => stream.rstCode === constants.NGHTTP2_NO_ERROR)
  session.close()
  return { status: Number(replied[':status']), headers: replied, ...body, rstCode: stream.rstCode }
}

function certificate(t: Test): { key: Buffer; cert: Buffer } {
  const directory = t.testdir()
  const [key, cert] = [join(directory, 'key.pem'), join(directory, 'cert.pem')]
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1']
  const args = ['req', '-x509', ...curve, '-keyout', key, '-out', cert, '-subj', '/CN=localhost']
  execFileSync('openssl', args, { stdio: 'ignore' })
  return { key: readFileSync(key), cert: readFileSync(cert) }
}

/** Servers by protocol, each with the clients that must see a failure. */
const SERVERS: Record<string, { tls: boolean; options: object; clients: Record<string, Download> }> = {
  'HTTP/1.1': { tls: false, options: {}, clients: { 'HTTP/1.1': byHttp1 } },
  'HTTP/1.1 over TLS': { tls: true, options: {}, clients: { 'HTTP/1.1': byHttp1 } },
  'HTTP/2 in clear text': { tls: false, options: { http2: true }, clients: { 'HTTP/2': byHttp2 } },
  'HTTP/2 over TLS': {
    tls: true,
    options: { http2: true },
    clients: { 'HTTP/2': byHttp2, 'HTTP/1.1': byHttp1 }
  }
}

const GZIP = { 'accept-encoding': 'gzip' }

/** Makes a backup of 4 MB in several chunks. */
async function backedUp(t: Test) {
  const on = await setupDatabases(t)
  const docs = Array.from({ length: 40 }, (_, i) => ({
    _id: `doc_${i}`,
    text: bytesOf(`${i}`, 75_000).toString('base64')
  }))
  await load(on.couch.use(on.names.components), docs, 20)
  const id = await apiOf(await buildHost(t, { on })).backup()
  const header = (await on.couch.use(on.names.system).get(id)) as unknown as StoredHeader
  const chunks = header.storage.databases.components!.chunks.map((chunk) => chunk.id)
  return { on, id, chunks }
}

/** Deletes a chunk, and returns a function that restores it. */
async function lose({ couch, names }: TestDatabases, chunk: string) {
  const system = couch.use(names.system)
  const { _rev, ...document } = await system.get(chunk, { attachments: true })
  await system.destroy(chunk, _rev)
  return () => system.insert(document as never)
}

async function serve(
  t: Test,
  on: TestDatabases,
  { tls, options }: (typeof SERVERS)[string],
  more: HostOptions = {}
) {
  const https = tls ? { https: { allowHTTP1: true, ...certificate(t) } } : {}
  const host = await buildHost(t, { on, server: { ...options, ...https } as HostOptions['server'], ...more })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = host.app.server.address() as AddressInfo
  return { host, origin: `${tls ? 'https' : 'http'}://127.0.0.1:${port}` }
}

t.test('a download that fails is cut off, never ended', async (t) => {
  const { on, id, chunks } = await backedUp(t)
  t.ok(chunks.length >= 3)
  const path = `/api/v1/backups/${id}`
  for (const [name, server] of Object.entries(SERVERS)) {
    const { origin } = await serve(t, on, server)
    for (const [client, download] of Object.entries(server.clients)) {
      await t.test(`${name}, a client of ${client}`, async (t) => {
        const whole = await download(origin, path)
        t.match(whole, { status: 200, complete: true })
        t.equal(JSON.parse(whole.text).id, id)
        const putBack = await lose(on, chunks.at(-1)!)
        const ways = {
          whole: {},
          'as gzip': GZIP,
          'from a byte on': { range: 'bytes=100-' }
        }
        for (const [way, headers] of Object.entries(ways)) {
          const { status, bytes, complete, rstCode } = await download(
            origin,
            path,
            headers as Record<string, string>
          )
          t.equal(status, way === 'from a byte on' ? 206 : 200, way)
          t.ok(bytes > 1_000_000 && bytes < whole.bytes, `${way}: ${bytes} of ${whole.bytes} bytes`)
          t.equal(complete, false, `${way} is cut off`)
          if (client === 'HTTP/2') t.equal(rstCode, constants.NGHTTP2_INTERNAL_ERROR, `${way} is reset`)
        }
        await putBack()
        t.match(await download(origin, path), { complete: true, bytes: whole.bytes })
        t.match(await download(origin, path, GZIP), {
          complete: true,
          headers: { 'content-encoding': 'gzip' }
        })
      })
    }
  }
})

t.test('nor is one whose length is not known', async (t) => {
  const { on, id, chunks } = await backedUp(t)
  const system = on.couch.use(on.names.system)
  const header = (await system.get(id)) as unknown as StoredHeader
  // headers of earlier versions do not have the length
  delete (header.dbs.athena_components as Partial<StoredHeader['dbs'][string]>)!.raw_bytes
  await system.insert(header as never)
  await lose(on, chunks.at(-1)!)
  for (const [name, server] of Object.entries(SERVERS)) {
    const { origin } = await serve(t, on, server)
    for (const [client, download] of Object.entries(server.clients)) {
      const { headers, complete, bytes, rstCode } = await download(origin, `/api/v1/backups/${id}`)
      t.notOk(headers['content-length'], `${name}, ${client}: without length`)
      t.ok(bytes > 1_000_000, `${name}, ${client}: ${bytes} bytes`)
      t.equal(complete, false, `${name}, ${client}: is cut off`)
      if (client === 'HTTP/2') t.equal(rstCode, constants.NGHTTP2_INTERNAL_ERROR)
    }
  }
})

t.test('one that fails before its first byte is an error, and tells nothing of a body', async (t) => {
  const { on, id, chunks } = await backedUp(t)
  await on.couch.use(on.names.system).attachment.insert(id, 'notes', 'x'.repeat(1000), 'text/plain', {
    rev: ((await on.couch.use(on.names.system).get(id)) as { _rev: string })._rev
  })
  const first = chunks[0]!
  const range = { range: `bytes=${3000}-` }
  await lose(on, first)
  for (const [name, server] of Object.entries(SERVERS)) {
    const { origin } = await serve(t, on, server)
    for (const [client, download] of Object.entries(server.clients)) {
      const reply = await download(origin, `/api/v1/backups/${id}`, range)
      const what = `${name}, ${client}`
      t.equal(reply.status, 500, what)
      t.equal(reply.complete, true, what)
      t.match(JSON.parse(reply.text), { statusCode: 500 }, what)
      for (const header of ['etag', 'content-range', 'accept-ranges']) t.notOk(reply.headers[header], header)
    }
  }
})

t.test('nor is one as gzip that fails before its first byte', async (t) => {
  const { on, id } = await backedUp(t)
  const fail = async (_request: unknown, _reply: unknown, body: unknown) => {
    if (typeof body === 'string') return body
    ;(body as Readable).destroy()
    return new Readable({ read: (): void => void 0, construct: (done) => done(new Error('failed')) })
  }
  for (const [name, server] of Object.entries(SERVERS)) {
    const { origin } = await serve(t, on, server, { extend: (app) => app.addHook('onSend', fail) })
    for (const [client, download] of Object.entries(server.clients)) {
      const reply = await download(origin, `/api/v1/backups/${id}`, GZIP)
      t.match(reply, { status: 500, complete: true }, `${name}, ${client}`)
      t.match(JSON.parse(reply.text), { statusCode: 500 })
      for (const header of ['etag', 'content-encoding']) t.notOk(reply.headers[header], header)
    }
  }
})

/** Streams that hosts put between a body and the client. The second does not pass on a failure of the body. */
const COMPRESSION: Record<string, (body: Readable) => Readable> = {
  'a plugin that passes on failures': (body) => pipeline(body, createGzip(), () => undefined),
  'a plugin that does not': (body) => body.pipe(createGzip())
}

t.test('a compressed download that fails is cut off as well', async (t) => {
  const { on, id, chunks } = await backedUp(t)
  await lose(on, chunks.at(-1)!)
  for (const [name, server] of Object.entries(SERVERS)) {
    for (const [plugin, compress] of Object.entries(COMPRESSION)) {
      const { origin } = await serve(t, on, server, {
        extend: (app) =>
          app.addHook('onSend', async (_request, reply, payload) => {
            if (typeof payload === 'string') return payload
            reply.header('content-encoding', 'gzip').removeHeader('content-length')
            return compress(payload as Readable)
          })
      })
      for (const [client, download] of Object.entries(server.clients)) {
        const { complete, bytes, rstCode } = await download(origin, `/api/v1/backups/${id}`)
        t.ok(bytes > 100_000, `${name}, ${client}, ${plugin}: ${bytes} bytes`)
        t.equal(complete, false, `${name}, ${client}, ${plugin}: is cut off`)
        if (client === 'HTTP/2') t.equal(rstCode, constants.NGHTTP2_INTERNAL_ERROR)
      }
    }
  }
})

t.test('a client that goes away ends the reading of the backup', async (t) => {
  const { on, id } = await backedUp(t)
  const leave: Record<string, (origin: string, path: string) => Promise<void>> = {
    async 'HTTP/1.1'(origin, path) {
      const request = httpRequest(origin + path, { headers: { 'x-role': 'manager' }, agent: false })
      request.end()
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      await once(response, 'readable')
      response.destroy()
    },
    async 'HTTP/2'(origin, path) {
      const session = connect(origin)
      const stream = session.request({ ':path': path, 'x-role': 'manager' })
      await once(stream, 'readable')
      stream.close(constants.NGHTTP2_CANCEL)
      session.close()
    }
  }
  for (const [client, go] of Object.entries(leave)) {
    const bodies: Readable[] = []
    const { origin } = await serve(
      t,
      on,
      { tls: false, options: client === 'HTTP/2' ? { http2: true } : {}, clients: {} },
      {
        extend: (app) =>
          app.addHook('onSend', async (_request, _reply, payload) => {
            bodies.push(payload as Readable)
            return payload
          })
      }
    )
    await go(origin, `/api/v1/backups/${id}`)
    await poll(`${client}: the body is given up`, async () => bodies[0]?.destroyed || undefined)
    t.notOk(bodies[0]!.readableEnded, `${client}: before its end`)
  }
})
