import { once } from 'node:events'
import { createServer, request as sendRequest } from 'node:http'
import { PassThrough, Readable } from 'node:stream'
import { buffer, json } from 'node:stream/consumers'
import Ajv from 'ajv/dist/2020.js'
import type { InjectOptions } from 'fastify'
import nano from 'nano'
import type { OpenAPIV3_1 } from 'openapi-types'
import t, { type Test } from 'tap'
import { openApiDocument } from '../examples/openapi/document.js'
import { LAYOUT } from '../lib/repository/layout.js'
import { apiOf, backupOf } from './helpers/api.js'
import { startBodyLimitProxy } from './helpers/body-limit-proxy.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost, type HostOptions, type TestHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'
import { operationsOf } from './helpers/openapi.js'
import { poll } from './helpers/poll.js'
import { load } from './helpers/seed.js'

const BASE = '/ak/api/v3/backups'
const UNKNOWN = '03_ibp_db_backup_1592924104038'

type OperationId =
  | 'startBackup'
  | 'listBackups'
  | 'getBackup'
  | 'restoreBackup'
  | 'restoreUploadedBackup'
  | 'appendAttachment'

interface Reply {
  statusCode: number
  headers: Record<string, unknown>
  body: unknown
}

/** A valid request of each operation. */
const REQUESTS: Record<OperationId, InjectOptions & { url: string }> = {
  startBackup: { method: 'POST', url: BASE },
  listBackups: { method: 'GET', url: BASE },
  getBackup: { method: 'GET', url: `${BASE}/${UNKNOWN}` },
  restoreBackup: { method: 'PUT', url: `${BASE}/${UNKNOWN}`, payload: {} },
  restoreUploadedBackup: { method: 'PUT', url: BASE, payload: backupOf([]) },
  appendAttachment: {
    method: 'PUT',
    url: `${BASE}/${UNKNOWN}/attachments/my-attachment`,
    payload: { attachment: 'aGVsbG8=' }
  }
}

const asJson = (payload: string | Readable, headers = {}) => ({
  payload,
  headers: { 'content-type': 'application/json', ...headers }
})

async function send(host: TestHost, id: OperationId, changes: InjectOptions = {}): Promise<Reply> {
  const request = { ...REQUESTS[id], ...changes }
  const { statusCode, headers, body } = await host.app.inject({
    ...request,
    headers: { ...host.as('manager'), ...request.headers }
  })
  return { statusCode, headers, body: JSON.parse(body) }
}

/** Returns the request of an operation, with a suffix to its URL. */
const at = (id: OperationId, more: string) => ({ url: REQUESTS[id].url + more })

/** Builds a host whose database holds what the examples show. */
async function seeded(t: Test, options: HostOptions = {}): Promise<TestHost> {
  const on = options.on ?? (await setupDatabases(t))
  await load(on.couch.use(on.names.components), [{ _id: 'org1peer', type: 'fabric-peer' }])
  await load(on.couch.use(on.names.system), [{ _id: '00_settings_athena', type: 'settings' }])
  return buildHost(t, { versions: { tag: '2.5.0-26' }, ...options, on })
}

/** Builds a host with a backup or a restore that runs until the test ends. @param close milliseconds in which it closes */
async function busy(
  t: Test,
  what: 'backup' | 'restore',
  close = 200
): Promise<{ host: TestHost; id: string }> {
  const on = await setupDatabases(t)
  const gate = await startGate(t, on)
  const held = what === 'backup' ? /_changes/ : /_bulk_docs|_revs_diff/
  gate.hold(held)
  const host = await seeded(t, { on, couch: gate.couch, timeouts: { close } })
  const { body } = await send(host, what === 'backup' ? 'startBackup' : 'restoreUploadedBackup', {
    ...(what === 'restore' && { payload: backupOf([{ _id: 'a' }]) })
  })
  await gate.held(held)
  return { host, id: (body as { id: string }).id }
}

/** Interrupts a backup by the end of its server, and builds another server on the same databases. */
async function failed(t: Test): Promise<{ host: TestHost; id: string }> {
  // Its end has to be recorded before the other server looks.
  const { host, id } = await busy(t, 'backup', 3000)
  await host.app.close()
  return { host: await buildHost(t, { on: host.on, versions: { tag: '2.5.0-26' } }), id }
}

/** Builds a host whose database refuses everything. */
async function refusing(t: Test, on: TestHost['on']): Promise<TestHost> {
  const server = createServer((request, response) => {
    request.resume()
    response.writeHead(403, { 'content-type': 'application/json' })
    response.end('{"error":"forbidden","reason":"You are not allowed to access this db."}')
  })
  const origin = await listen(t, server)
  return buildHost(t, { on, couch: nano(origin) })
}

/** Sends a body that stops after its first byte. */
async function stalled(t: Test, id: OperationId, on: TestHost['on']): Promise<Reply> {
  const host = await buildHost(t, { on, timeouts: { idle: 100 } })
  const origin = await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { method, url } = REQUESTS[id]
  const request = sendRequest(origin + url, {
    method,
    headers: { ...host.as('manager'), 'content-type': 'application/json' }
  })
  t.teardown(() => request.destroy())
  request.on('error', () => {})
  request.write('{')
  const [response] = await once(request, 'response')
  return { statusCode: response.statusCode, headers: response.headers, body: await json(response) }
}

/** Sends a request that is accepted just before the server begins to close. */
async function closing(t: Test, id: OperationId, on: TestHost['on']): Promise<Reply> {
  let asked = () => {}
  let answer = () => {}
  const waiting = new Promise<void>((resolve) => {
    asked = resolve
  })
  const host = await buildHost(t, {
    on,
    authorize: () =>
      new Promise<void>((resolve) => {
        answer = resolve
        asked()
      })
  })
  const reply = send(host, id)
  await waiting
  const closed = host.app.close()
  answer()
  const result = await reply
  await closed
  return result
}

/** `idle` is a host without operations, for requests that change nothing. */
type Provoke = (t: Test, id: OperationId, idle: TestHost) => Promise<Reply>

const never = () => new Promise<never>(() => {})

/** Makes a sealed backup, and asks for it, or for another, when the host gives another key. */
async function sealedThen(t: Test, id: Parameters<Provoke>[1], other: Buffer | undefined) {
  let key: Buffer | undefined = Buffer.alloc(32, 1)
  const encryption = { current: '2026-01', key: () => key as Buffer }
  const host = await buildHost(t, { on: (await seeded(t)).on, encryption })
  const backup = await apiOf(host).backup()
  key = other
  return send(host, id, { url: REQUESTS[id].url.replace(UNKNOWN, backup) })
}

/** Functions that get each reply of which the document shows an example. */
const PROVOKE: Record<string, Provoke> = {
  started: async (t, id) => {
    const host = await seeded(t)
    const backup = await apiOf(host).backup()
    return send(host, id, id === 'restoreBackup' ? { url: `${BASE}/${backup}` } : {})
  },
  ids: async (t) => {
    const host = await seeded(t)
    await apiOf(host).backup()
    return send(host, 'listBackups')
  },
  stored: async (t) => {
    const host = await seeded(t)
    const url = `${BASE}/${await apiOf(host).backup()}/attachments/my-attachment`
    return send(host, 'appendAttachment', { url })
  },
  finished: async (t) => {
    const host = await seeded(t)
    const url = `${BASE}/${await apiOf(host).backup()}`
    await send(host, 'appendAttachment', { url: `${url}/attachments/my-attachment` })
    return send(host, 'getBackup', { url })
  },
  protected: async (t) => {
    const host = await seeded(t)
    const { id, finished } = await host.app.dbBackups.start({
      requester: { name: 'somebody', uuid: 'somebody' },
      note: 'before an upgrade',
      protect: true
    })
    await finished
    await host.app.dbBackups.attach(id, 'my-attachment', 'hello')
    return send(host, 'getBackup', { url: `${BASE}/${id}` })
  },
  running: async (t) => {
    const { host, id } = await busy(t, 'backup')
    return send(host, 'getBackup', { url: `${BASE}/${id}` })
  },
  failed: async (t) => {
    const { host, id } = await failed(t)
    return send(host, 'getBackup', { url: `${BASE}/${id}` })
  },
  rangeAfterEnd: async (t, id) => {
    const host = await seeded(t)
    return send(host, id, {
      url: `${BASE}/${await apiOf(host).backup()}`,
      headers: { range: 'bytes=1000000-' }
    })
  },
  damaged: async (t, id) => {
    const host = await seeded(t)
    const url = `${BASE}/${await apiOf(host).backup()}`
    const whole = (await host.app.inject({ method: 'GET', url, headers: host.as('manager') })).body
    const system = host.on.couch.use(host.on.names.system)
    const { rows } = await system.list({ startkey: 'backup_chunk_', endkey: 'backup_chunk_\ufff0' })
    const { id: chunk, value } = rows.find((row) => row.id.includes('components'))!
    await system.destroy(chunk, value.rev)
    // the reply begins before the chunk is read
    return send(host, id, { url, headers: { range: `bytes=${whole.indexOf('org1peer')}-` } })
  },
  keyUnavailable: (t, id) => sealedThen(t, id, undefined),
  wrongKey: (t, id) => sealedThen(t, id, Buffer.alloc(32, 2)),
  notSealed: async (t, id) => {
    const on = (await seeded(t)).on
    const backup = await apiOf(await buildHost(t, { on })).backup()
    const encryption = { current: '2026-01', key: () => Buffer.alloc(32, 1), plain: 'refuse' as const }
    return send(await buildHost(t, { on, encryption }), id, {
      url: REQUESTS[id].url.replace(UNKNOWN, backup)
    })
  },
  codedPart: async (t, id) => {
    const extend: HostOptions['extend'] = (app) =>
      app.addHook('onSend', async (_request, reply, payload) => {
        if (reply.statusCode === 206) reply.header('content-encoding', 'gzip')
        return payload
      })
    const host = await seeded(t, { extend })
    return send(host, id, {
      url: `${BASE}/${await apiOf(host).backup()}`,
      headers: { range: 'bytes=1-' }
    })
  },
  backupRuns: async (t, id) => send((await busy(t, 'backup')).host, id),
  backupRunsInstead: async (t, id) => send((await busy(t, 'backup')).host, id),
  restoreRuns: async (t, id) => send((await busy(t, 'restore')).host, id),
  restoreRunsInstead: async (t, id) => send((await busy(t, 'restore')).host, id),
  unknownQueryKey: async (_t, id, idle) => send(idle, id, at(id, '?limit=1')),
  invalidBackupId: async (_t, id, idle) =>
    send(idle, id, { url: REQUESTS[id].url.replace(UNKNOWN, '1592924104038') }),
  unexpectedBody: async (_t, id, idle) => send(idle, id, { payload: { databases: ['system'] } }),
  invalidJson: async (_t, id, idle) => send(idle, id, asJson('{')),
  invalidAttachment: async (_t, id, idle) => send(idle, id, { payload: { attachment: 1 } }),
  invalidAttachmentName: async (_t, id, idle) =>
    send(idle, id, { url: `${BASE}/${UNKNOWN}/attachments/_local` }),
  invalidSkipList: async (_t, id, idle) => send(idle, id, at(id, '?skip_system={}')),
  invalidWebhook: async (_t, id, idle) =>
    send(idle, id, {
      payload: { ...(REQUESTS[id].payload as object), client_webhook_url: 'ftp://example.com/' }
    }),
  nothingToRestore: async (_t, id, idle) => send(idle, id),
  notRestorable: async (t, id) => {
    const { host, id: backup } = await failed(t)
    const url = `${BASE}/${backup}`
    if (id === 'restoreBackup') return send(host, id, { url })
    return send(host, id, { payload: (await send(host, 'getBackup', { url })).body as object })
  },
  invalidBackup: async (_t, id, idle) =>
    send(idle, id, { payload: { dbs: { athena_system: { docs: [{ _id: 'a' }, {}] } } } }),
  truncatedBackup: async (_t, id, idle) => send(idle, id, asJson('{"dbs":{}')),
  unauthorized: async (_t, id, idle) => send(idle, id, { headers: { 'x-role': 'none' } }),
  forbidden: async (_t, id, idle) => send(idle, id, { headers: { 'x-role': 'reader' } }),
  notAllowed: async (t, id, idle) =>
    send(await buildHost(t, { on: idle.on, authorize: (async () => false) as never }), id),
  unknownBackup: async (_t, id, idle) => send(idle, id),
  unknownLayout: async (t, id) => {
    const host = await seeded(t)
    const backup = await apiOf(host).backup()
    const system = host.on.couch.use(host.on.names.system)
    const header = (await system.get(backup)) as unknown as { storage: { layout: number } }
    header.storage.layout = LAYOUT + 1
    await system.insert(header as never)
    return send(host, id, { url: REQUESTS[id].url.replace(UNKNOWN, backup) })
  },
  nothingToAppendTo: async (_t, id, idle) => send(idle, id),
  uploadStalled: (t, id, idle) => stalled(t, id, idle.on),
  bodyTooLarge: async (_t, id, idle) => send(idle, id, asJson('{}', { 'content-length': String(1024 ** 4) })),
  attachmentTooLarge: async (t, id, idle) =>
    send(await buildHost(t, { on: idle.on, limits: { attachmentBytes: 1000 } }), id, {
      payload: { attachment: 'a'.repeat(1001) }
    }),
  attachmentNotTaken: async (t, id) => {
    const on = await setupDatabases(t)
    const proxy = await startBodyLimitProxy(t, on.url, { limit: 1024 * 1024, closing: 'lingers' })
    const host = await seeded(t, { on, couch: nano(proxy.url) })
    const url = `${BASE}/${await apiOf(host).backup()}/attachments/my-attachment`
    return send(host, id, { url, payload: { attachment: 'a'.repeat(2_000_000) } })
  },
  tooManyAttachments: async (t, id) => {
    const host = await seeded(t, { limits: { attachments: 1 } })
    const url = `${BASE}/${await apiOf(host).backup()}/attachments`
    await send(host, id, { url: `${url}/first` })
    const reply = await send(host, id, { url: `${url}/my-attachment` })
    const many = JSON.stringify(reply.body)
      .replace('has 1 ', 'has 1000 ')
      .replace('allows 1"', 'allows 1000"')
    return { ...reply, body: JSON.parse(many) }
  },
  appendBusy: async (t, id) => {
    const on = await setupDatabases(t)
    const gate = await startGate(t, on)
    const host = await seeded(t, { on, couch: gate.couch, timeouts: { control: 300 } })
    const url = `${BASE}/${await apiOf(host).backup()}/attachments/my-attachment`
    const held = /my-attachment/
    const release = gate.hold(held)
    const first = send(host, id, { url })
    await gate.held(held)
    const reply = await send(host, id, { url })
    release()
    await first
    return reply
  },
  uploadTooLarge: async (t, id, idle) =>
    send(
      await buildHost(t, { on: idle.on, limits: { uploadBytes: 1000 } }),
      id,
      asJson(Readable.from([JSON.stringify(backupOf([{ _id: 'a'.repeat(1000) }]))]))
    ),
  mediaType: async (_t, id, idle) =>
    send(idle, id, { payload: '<a/>', headers: { 'content-type': 'application/xml' } }),
  compressedBody: async (_t, id, idle) => send(idle, id, asJson('{}', { 'content-encoding': 'br' })),
  authorizationFailed: async (t, id, idle) =>
    send(
      await buildHost(t, { on: idle.on, authorize: () => Promise.reject(new Error('no session store')) }),
      id
    ),
  bodyAlreadyRead: async (t, id, idle) => {
    const extend: HostOptions['extend'] = (app) =>
      app.addHook('onRequest', async (request) => {
        await buffer(request.raw)
      })
    return send(await buildHost(t, { on: idle.on, extend }), id, asJson('{"a":1}'))
  },
  databaseError: async (t, id, idle) => send(await refusing(t, idle.on), id),
  databaseUnavailable: async (t, id, idle) => {
    const reply = await send(await buildHost(t, { on: idle.on, couch: nano('http://127.0.0.1:9') }), id)
    t.equal(reply.headers['retry-after'], '5')
    return reply
  },
  tooManyRequests: async (t, id) => {
    const on = await setupDatabases(t)
    const gate = await startGate(t, on)
    const release = gate.hold(/_bulk_get$/)
    const host = await buildHost(t, { on, couch: gate.couch, timeouts: { close: 200 } })
    // As many as are answered at a time, and may wait. Calls of the host wait in the same line.
    const requester = { name: 'somebody', uuid: 'somebody' }
    const before = Array.from({ length: 16 + 256 }, () => host.app.dbBackups.start({ requester }))
    const reply = await send(host, id)
    t.equal(reply.headers['retry-after'], '5')
    await host.app.close()
    release()
    t.notOk((await Promise.allSettled(before)).some(({ status }) => status === 'fulfilled'))
    return reply
  },
  tooManyDownloads: async (t, id) => {
    const host = await seeded(t)
    const backup = await apiOf(host).backup()
    const read = await Promise.all(Array.from({ length: 4 }, () => host.app.dbBackups.get(backup)))
    for (const { body } of read) body.on('error', () => undefined).read()
    const reply = await send(host, id, { url: `${BASE}/${backup}` })
    t.equal(reply.headers['retry-after'], '5')
    for (const { body } of read) body.destroy()
    return reply
  },
  tooManyUploads: async (t, id) => {
    const host = await buildHost(t)
    const standing = Array.from({ length: 4 }, () => {
      const body = new PassThrough()
      body.write('{')
      void host.app.dbBackups.restore({ body }).catch(() => undefined)
      return body
    })
    const reply = await poll('the refusal', async () => {
      const { statusCode, ...rest } = await send(host, id, asJson('{'))
      return statusCode === 503 ? { statusCode, ...rest } : undefined
    })
    t.equal(reply.headers['retry-after'], '5')
    for (const body of standing) body.end()
    return reply
  },
  closing: (t, id, idle) => closing(t, id, idle.on),
  reservedId: async (t, id) => {
    const host = await seeded(t)
    await load(host.on.couch.use(host.on.names.system), [{ _id: 'athena_backup_lease', type: 'lease' }])
    const backup = { _id: UNKNOWN, type: 'athena_backup', dbs: {} }
    await load(host.on.couch.use(host.on.names.system), [backup])
    return send(host, id)
  },
  missingDatabase: async (t, id) => {
    const on = await setupDatabases(t, { names: { system: 'athena_system' } })
    await on.couch.db.destroy(on.names.system)
    return send(await buildHost(t, { on }), id)
  },
  versionsLate: async (t, id, { on }) =>
    send(await buildHost(t, { on, versions: never, timeouts: { versions: 50 } }), id),
  versionsTooLong: async (t, id, { on }) =>
    send(await buildHost(t, { on, versions: { tag: 'v'.repeat(99_990) } }), id),
  transactionsLate: async (t, id) => {
    const { on } = await seeded(t)
    const webhooks = { create: never, update: never, get: async () => null }
    const host = await buildHost(t, { on, webhooks, timeouts: { webhooks: 50 } })
    return send(host, id, id === 'restoreBackup' ? { url: `${BASE}/${await apiOf(host).backup()}` } : {})
  },
  noRoom: async (t, id, idle) =>
    send(await buildHost(t, { on: idle.on, limits: { spoolBytes: 1000 } }), id, {
      payload:
        id === 'appendAttachment'
          ? { attachment: 'b'.repeat(20_000) }
          : backupOf([{ _id: 'a', text: 'b'.repeat(2000) }])
    })
}

/** Removes what differs from one run to another. */
function withoutParticulars(value: unknown): unknown {
  const text = JSON.stringify(value)
    .replace(/03_ibp_db_backup_\d{10,}/g, 'BACKUP')
    .replace(/backup_chunk_\d{10,}/g, 'CHUNK')
    .replace(/\b[0-9a-f]{32}\b/g, 'TRANSACTION')
    .replace(/[A-Z]+ \/[\w/]+: /g, 'REQUEST: ')
    .replace(/\d+ bytes|byte \d+/g, 'BYTES')
    .replace(/\d+ ms/g, 'TIME')
    .replace(/of database \\"\w+\\"/g, 'of DATABASE')
  return JSON.parse(text)
}

/** Members that the embedded database does not provide. */
const OF_SERVER = new Set(['partitioned', 'q'])

/** Returns names and types of the members. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return [...new Set(value.map((element) => JSON.stringify(shapeOf(element))))]
  if (typeof value !== 'object' || value === null) return typeof value
  const members = Object.entries(value)
    .filter(([name]) => !OF_SERVER.has(name))
    .map(([name, member]) => [name, shapeOf(member)])
  return Object.fromEntries(members.sort())
}

/** Returns the schemas of the document, changed to refuse members that they do not name. */
function validatorOf(document: OpenAPIV3_1.Document) {
  const close = (node: unknown): unknown => {
    if (Array.isArray(node)) return node.map(close)
    if (typeof node !== 'object' || node === null) return node
    const entries = Object.entries(node).map(([name, member]) => [name, close(member)])
    const schema = Object.fromEntries(entries)
    if ('properties' in schema && !('additionalProperties' in schema)) schema.additionalProperties = false
    return schema
  }
  const ajv = new Ajv({ strict: false })
  ajv.addSchema({ $id: 'document', components: close(document.components) })
  return (t: Test, schema: unknown, value: unknown, what: string) => {
    const { $ref } = schema as { $ref: string }
    const validate = ajv.getSchema(`document${$ref}`)!
    t.ok(validate(value), `${what}: ${JSON.stringify(validate.errors ?? 'valid')}`)
  }
}

t.test('the routes reply what the document says about replies', async (t) => {
  const document = await openApiDocument()
  const validate = validatorOf(document)
  const idle = await buildHost(t)
  const provoked = new Set<string>()
  for (const { path, operation } of operationsOf(document)) {
    if (!path.startsWith(BASE)) continue
    const id = operation.operationId as OperationId
    await t.test(id, async (t) => {
      for (const [status, response] of Object.entries(operation.responses!)) {
        const { schema, examples } = (response as OpenAPIV3_1.ResponseObject).content!['application/json']!
        for (const [name, example] of Object.entries(examples!)) {
          const { value } = example as OpenAPIV3_1.ExampleObject
          await t.test(`${status} ${name}`, async (t) => {
            const reply = await PROVOKE[name]!(t, id, idle)
            provoked.add(name)
            t.equal(reply.statusCode, Number(status), JSON.stringify(reply.body))
            validate(t, schema, reply.body, 'the reply')
            validate(t, schema, value, 'the example')
            if (reply.statusCode >= 400) {
              t.strictSame(withoutParticulars(reply.body), withoutParticulars(value))
            } else {
              t.strictSame(shapeOf(reply.body), shapeOf(value))
            }
          })
        }
      }
    })
  }
  t.strictSame([...provoked].sort(), Object.keys(PROVOKE).sort())
  const { rows } = await idle.on.couch.use(idle.on.names.system).list()
  t.strictSame(rows, [], 'the idle host was idle')
})

t.test('a webhook receives what the document says', async (t) => {
  const document = await openApiDocument()
  const { operation } = operationsOf(document).find(
    ({ operation }) => operation.operationId === 'restoreBackup'
  )!
  const [callback] = Object.values(operation.callbacks!.restoreEnded!)
  const { content } = (callback as OpenAPIV3_1.PathItemObject).post!.requestBody as never
  const { schema, examples } = content['application/json'] as OpenAPIV3_1.MediaTypeObject

  const server = createServer()
  const origin = await listen(t, server)
  const host = await seeded(t)
  const id = await apiOf(host).backup()
  const components = host.on.couch.use(host.on.names.components)
  await components.destroy('org1peer', (await components.get('org1peer'))._rev)
  const call = once(server, 'request')
  await send(host, 'restoreBackup', {
    url: `${BASE}/${id}`,
    payload: { client_webhook_url: `${origin}/` }
  })
  const [request, response] = await call
  const received = await json(request)
  response.end()

  const validate = validatorOf(document)
  const { value } = examples!.success as OpenAPIV3_1.ExampleObject
  validate(t, schema, received, 'the received body')
  validate(t, schema, value, 'the example')
  t.strictSame(shapeOf(received), shapeOf(value))
  t.match(received, { status: 'success', backup_id: id, athena_messages: value.athena_messages })
})
