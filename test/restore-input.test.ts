import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { deflateSync, gzipSync } from 'node:zlib'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { MAX_DEPTH } from '../lib/json/scanner.js'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost, type HostOptions } from './helpers/host.js'
import { spooledIn } from './helpers/spooled.js'

async function setup(t: Test, options: HostOptions = {}) {
  const on = await setupDatabases(t)
  const spoolDirectory = await mkdtemp(join(tmpdir(), 'input-'))
  t.teardown(() => rm(spoolDirectory, { recursive: true, force: true }))
  const host = await buildHost(t, { on, spoolDirectory, ...options })
  /** Checks that no earlier request has written to a database or to the disk. */
  const untouched = async (t: Test) => {
    for (const name of Object.values(on.names)) {
      t.equal((await on.couch.db.get(name)).update_seq.toString().split('-')[0], '0', `${name} is untouched`)
    }
    t.strictSame(await spooledIn(spoolDirectory), [], 'nothing is left on the disk')
    t.equal(host.calls.rebuildWhitelist, 0)
  }
  return { on, host, api: apiOf(host), untouched, spoolDirectory }
}

const docs = (text: string) => `{"dbs":{"athena_components":{"docs":[{"_id":"first"},${text}]}}}`

/** Refused uploads, with what the message must name. */
const INVALID: Record<string, [body: string, message: RegExp | string]> = {
  'an empty body': ['', 'the body is truncated: unexpected end of JSON at byte 0'],
  spaces: [' \n ', /truncated/],
  'no JSON': ['backup', 'the body is not JSON: expected a value at byte 0'],
  'a wrong byte': [
    docs('{"_id":"b",}'),
    `the body is not JSON: expected a member name at byte ${docs('{"_id":"b",').length - 4}`
  ],
  'two values': ['{"dbs":{}} {}', /unexpected data after the JSON value at byte 11/],
  'a number that is none': [docs('{"_id":"b","n":01}'), /not JSON.* at byte [0-9]+/],
  'bytes that are not UTF-8': [docs('{"_id":"b","n":"\xff"}'), /invalid UTF-8 at byte [0-9]+/],
  'a body cut inside a document': [
    docs('{"_id":"b","n":1}').slice(0, 60),
    'the body is truncated: unexpected end of JSON at byte 60'
  ],
  'a body cut before its last brace': [docs('{"_id":"b"}').slice(0, -1), /^the body is truncated: /],
  'an array': ['[]', 'the body must be an object'],
  'a string': ['"x"', 'the body must be an object'],
  null: ['null', 'the body must be an object'],
  'no dbs': ['{}', '"dbs" is missing'],
  'no dbs but others': ['{"id":"03_ibp_db_backup_1","type":"athena_backup"}', '"dbs" is missing'],
  'dbs that is null': ['{"dbs":null}', '"dbs" must be an object'],
  'dbs that is an array': ['{"dbs":[]}', '"dbs" must be an object'],
  'dbs twice': ['{"dbs":{},"dbs":{}}', '"dbs" stands in the body twice'],
  'an unknown key': ['{"dbs":{},"nodes":1}', 'unknown key "nodes" in the body'],
  'a prototype as a key': ['{"__proto__":{"x":1},"dbs":{}}', 'unknown key "__proto__" in the body'],
  'an unknown database': [
    '{"dbs":{"athena_users":{"docs":[]}}}',
    '"dbs.athena_users" is not a database of this console'
  ],
  'an empty database key': ['{"dbs":{"":{"docs":[]}}}', '"dbs." is not a database of this console'],
  'a database in two spellings': [
    '{"dbs":{"components":{"docs":[]},"DB_COMPONENTS":{"docs":[]}}}',
    '"dbs.components" and "dbs.DB_COMPONENTS" are the same database'
  ],
  'a database twice': [
    '{"dbs":{"athena_system":{"docs":[]},"athena_system":{"docs":[]}}}',
    '"dbs.athena_system" and "dbs.athena_system" are the same database'
  ],
  'a database that is an array': ['{"dbs":{"athena_system":[]}}', '"dbs.athena_system" must be an object'],
  'an unknown key of a database': [
    '{"dbs":{"athena_system":{"docs":[],"rows":[]}}}',
    'unknown key "dbs.athena_system.rows"'
  ],
  'no docs': ['{"dbs":{"athena_system":{}}}', '"dbs.athena_system.docs" is missing'],
  'docs that is an object': [
    '{"dbs":{"athena_system":{"docs":{}}}}',
    '"dbs.athena_system.docs" must be an array'
  ],
  'docs that is null': [
    '{"dbs":{"athena_system":{"docs":null}}}',
    '"dbs.athena_system.docs" must be an array'
  ],
  'docs twice': [
    '{"dbs":{"athena_system":{"docs":[],"docs":[]}}}',
    '"dbs.athena_system.docs" stands there twice'
  ],
  'docs in both forms': ['{"dbs":{"athena_system":{"docs":[],"compressed_docs":"eA=="}}}', /compressed_docs/],
  'compressed_docs that is an array': [
    '{"dbs":{"system":{"compressed_docs":[]}}}',
    '"dbs.system.compressed_docs" must be a string'
  ],
  'compressed_docs that is not base64': [
    '{"dbs":{"system":{"compressed_docs":"%%%%"}}}',
    '"dbs.system.compressed_docs" is not base64'
  ],
  'compressed_docs that is not deflated': [
    '{"dbs":{"system":{"compressed_docs":"aGVsbG8gd29ybGQ="}}}',
    /^"dbs.system.compressed_docs" cannot be inflated: /
  ],
  'compressed_docs with more after its end': [
    `{"dbs":{"system":{"compressed_docs":"${Buffer.concat([deflateSync('[]'), Buffer.alloc(20_000)]).toString('base64')}"}}}`,
    '"dbs.system.compressed_docs" holds data after what was compressed'
  ],
  'compressed_docs of no array': [
    `{"dbs":{"system":{"compressed_docs":"${deflateSync('{}').toString('base64')}"}}}`,
    '"dbs.system.compressed_docs" does not inflate to an array'
  ],
  'compressed_docs that is cut': [
    `{"dbs":{"system":{"compressed_docs":"${deflateSync(JSON.stringify([{ _id: 'a' }]))
      .subarray(0, -8)
      .toString('base64')}"}}}`,
    /dbs\.system\.compressed_docs/
  ],
  'a document that is a string': [docs('"b"'), 'dbs.athena_components.docs[1] is not an object'],
  'a document that is null': [docs('null'), 'dbs.athena_components.docs[1] is not an object'],
  'a document that is an array': [docs('[]'), 'dbs.athena_components.docs[1] is not an object'],
  'a document without id': [docs('{"type":"x"}'), 'dbs.athena_components.docs[1]: a document has no "_id"'],
  'a document whose id is inside': [docs('{"doc":{"_id":"x"}}'), /docs\[1\]: a document has no "_id"/],
  'an empty id': [docs('{"_id":""}'), /docs\[1\]: .*"_id" is empty/],
  'a number as id': [docs('{"_id":7}'), /docs\[1\]: .*"_id" is not a string/],
  'null as id': [docs('{"_id":null}'), /docs\[1\]: .*"_id" is not a string/],
  'an id with an underscore': [
    docs('{"_id":"_bad"}'),
    /docs\[1\]: "_id" must not begin with an underscore: "_bad"/
  ],
  'a local document': [docs('{"_id":"_local/x"}'), /docs\[1\]: "_id" must not begin with an underscore/],
  'a design document without name': [
    docs('{"_id":"_design/"}'),
    /docs\[1\]: "_id" must not begin with an underscore/
  ],
  'an escaped underscore': [
    docs('{"_id":"\\u005fbad"}'),
    /docs\[1\]: "_id" must not begin with an underscore/
  ],
  'two ids': [docs('{"_id":"a","_id":"b"}'), /docs\[1\]: a document has two "_id" members/],
  'a revision that is none': [docs('{"_id":"a","_rev":"x"}'), /docs\[1\]: .*"_rev" is not a revision/],
  'a bad document in the last database': [
    '{"dbs":{"components":{"docs":[{"_id":"a"}]},"sessions":{"docs":[{"_id":"b"}]},"system":{"docs":[{}]}}}',
    /^dbs\.system\.docs\[0\]/
  ],
  'a webhook that is no string': ['{"client_webhook_url":1,"dbs":{}}', 'client_webhook_url must be a string'],
  'a webhook that is null': ['{"client_webhook_url":null,"dbs":{}}', 'client_webhook_url must be a string'],
  'a webhook that is no URL': ['{"client_webhook_url":"x","dbs":{}}', 'client_webhook_url is not a URL'],
  'a webhook of another scheme': [
    '{"dbs":{},"client_webhook_url":"ftp://example.com/"}',
    'client_webhook_url is not an http(s) URL'
  ],
  'a webhook that reads files': [
    '{"dbs":{},"client_webhook_url":"file:///etc/passwd"}',
    'client_webhook_url is not an http(s) URL'
  ],
  'a webhook with credentials': [
    '{"dbs":{},"client_webhook_url":"http://me:pw@example.com/"}',
    'client_webhook_url must not hold credentials'
  ]
}

t.test('an upload that is not a backup is refused, and the message names the field', async (t) => {
  const { api, untouched } = await setup(t)
  for (const [what, [body, message]] of Object.entries(INVALID)) {
    const reply = await api.call('PUT', '', Buffer.from(body, 'latin1'))
    t.equal(reply.statusCode, 400, what)
    const { message: told, ...others } = reply.json()
    t.match(others, { statusCode: 400, error: 'Bad Request' })
    if (typeof message === 'string') t.equal(told, message)
    else t.match(told, message)
  }
  await untouched(t)
  t.equal((await api.restore(backupOf([{ _id: 'a' }]))).status, 'success', 'nothing is left running')
})

t.test('a missing body and unknown query keys are refused', async (t) => {
  const { api, untouched } = await setup(t)
  const none = await api.call('PUT', '', undefined)
  t.equal(none.statusCode, 400)
  t.match(none.json().message, /^the body is truncated/)
  for (const key of ['skip_sessions', 'dry_run', 'exact', '__proto__']) {
    const reply = await api.call('PUT', `?${key}=["a"]`, backupOf([{ _id: 'a' }]))
    t.equal(reply.statusCode, 400, key)
    t.ok(reply.json().message.includes(key))
  }
  await untouched(t)
})

t.test('only JSON is accepted', async (t) => {
  const { host, untouched } = await setup(t)
  const backup = JSON.stringify(backupOf([{ _id: 'a' }]))
  const send = (headers: Record<string, string>, payload: string | Buffer = backup) =>
    host.app.inject({
      method: 'PUT',
      url: '/api/v1/backups',
      headers: { ...host.as('manager'), ...headers },
      payload
    })
  for (const type of [
    'text/plain',
    'application/xml',
    'multipart/form-data; boundary=x',
    'application/octet-stream',
    'x'
  ]) {
    t.equal((await send({ 'content-type': type })).statusCode, 415, type)
  }
  for (const encoding of ['deflate', 'br', 'zstd', 'gzip, identity', 'gzip, gzip']) {
    const headers = { 'content-type': 'application/json', 'content-encoding': encoding }
    const reply = await send(headers, gzipSync(backup))
    t.equal(reply.statusCode, 415, encoding)
    t.ok(reply.json().message.includes(encoding))
    t.equal(reply.headers['accept-encoding'], 'gzip')
  }
  await untouched(t)
  const plain = { 'content-type': 'application/json; charset=utf-8', 'content-encoding': 'identity' }
  const { statusCode, body } = await send(plain)
  t.equal(statusCode, 202)
  await host.waitForRestore(JSON.parse(body).url)
})

t.test('a parser of the host does not read uploads', async (t) => {
  const on = await setupDatabases(t)
  const app = Fastify()
  t.teardown(() => app.close())
  let read = 0
  app.addContentTypeParser(['*', 'application/x-backup'], { parseAs: 'string' }, (_request, body, done) => {
    read++
    done(null, body)
  })
  await app.register(dbBackups, {
    couch: on.couch,
    databases: on.names,
    authorize() {},
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist() {}
  })
  for (const type of ['application/x-backup', 'text/x']) {
    const payload = JSON.stringify(backupOf([{ _id: 'a' }]))
    const reply = await app.inject({
      method: 'PUT',
      url: '/api/v1/backups',
      headers: { 'content-type': type },
      payload
    })
    t.equal(reply.statusCode, 415, type)
  }
  t.equal(read, 0)
})

t.test('an upload beyond the limit is refused', async (t) => {
  const uploadBytes = 100_000
  const { host, api, untouched } = await setup(t, { limits: { uploadBytes } })
  const sized = (size: number) => {
    const empty = JSON.stringify(backupOf([{ _id: 'a', text: '' }])).length
    return JSON.stringify(backupOf([{ _id: 'a', text: 'x'.repeat(size - empty) }]))
  }
  const tooLarge = await api.call('PUT', '', sized(uploadBytes + 1))
  t.equal(tooLarge.statusCode, 413)
  t.match(tooLarge.json(), { statusCode: 413, error: 'Payload Too Large', message: /100000 bytes/ })

  const { port } = new URL(await host.app.listen({ port: 0, host: '127.0.0.1' }))
  for (const headers of [{ 'content-length': String(uploadBytes * 2) }, { 'transfer-encoding': 'chunked' }]) {
    const startedAt = performance.now()
    const status = await new Promise((resolve, reject) => {
      const upload = request(
        {
          host: '127.0.0.1',
          port,
          path: '/api/v1/backups',
          method: 'PUT',
          headers: { 'content-type': 'application/json', ...host.as('manager'), ...headers }
        },
        (response) => resolve(response.resume().statusCode)
      )
      upload.on('error', reject)
      upload.end(sized(uploadBytes * 2))
    })
    t.equal(status, 413, Object.keys(headers)[0])
    t.ok(performance.now() - startedAt < 2000, 'what is left of the body is read, not waited for')
  }
  await untouched(t)
  const fits = await api.restore(Buffer.from(sized(uploadBytes)))
  t.equal(fits.status, 'success', 'the limit itself is allowed')
})

t.test('an upload that the disk has no room for is refused', async (t) => {
  const { api, untouched } = await setup(t, { limits: { spoolBytes: 1000 } })
  const reply = await api.call('PUT', '', backupOf([{ _id: 'a', text: 'x'.repeat(1000) }]))
  t.equal(reply.statusCode, 507)
  t.match(reply.json().message, /1000 bytes/)
  await untouched(t)
})

t.test('compressed documents may not inflate beyond the limit', async (t) => {
  const { api, untouched } = await setup(t, { limits: { inflatedBytes: 1_000_000 } })
  const bomb = deflateSync(JSON.stringify([{ _id: 'a', text: ' '.repeat(50_000_000) }])).toString('base64')
  t.ok(bomb.length < 100_000)
  const reply = await api.call('PUT', '', { dbs: { athena_system: { compressed_docs: bomb } } })
  t.equal(reply.statusCode, 413)
  t.equal(reply.json().message, '"dbs.athena_system.compressed_docs" inflates to more than 1000000 bytes')
  await untouched(t)
})

t.test('an upload that nests deeper than any document can is refused', async (t) => {
  const { api, untouched } = await setup(t)
  const reply = await api.call(
    'PUT',
    '',
    `{"dbs":{"components":{"docs":[{"_id":"deep","deep":${'['.repeat(MAX_DEPTH)}`
  )
  t.equal(reply.statusCode, 400)
  t.match(reply.json().message, /^the body is no backup: nested deeper than 8388608 levels at byte [0-9]+$/)
  const endless = await api.call('PUT', '', '['.repeat(1_000_000))
  t.equal(endless.statusCode, 400)
  await untouched(t)
})

t.test('an upload whose sender goes away leaves nothing', async (t) => {
  const { host, untouched, spoolDirectory } = await setup(t)
  const { port } = new URL(await host.app.listen({ port: 0, host: '127.0.0.1' }))
  const upload = request({
    host: '127.0.0.1',
    port,
    path: '/api/v1/backups',
    method: 'PUT',
    headers: { 'content-type': 'application/json', ...host.as('manager') }
  })
  upload.on('error', () => {})
  upload.write(docs('{"_id":"b"}').slice(0, -3))
  while ((await spooledIn(spoolDirectory)).length === 0) await delay(10)
  upload.destroy()
  while ((await spooledIn(spoolDirectory)).length > 0) await delay(10)
  await untouched(t)
})
