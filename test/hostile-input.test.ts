import fc from 'fast-check'
import type { InjectOptions } from 'fastify'
import t from 'tap'
import { character } from './helpers/arbitraries.js'
import { buildHost } from './helpers/host.js'
import { cases, extent } from './helpers/settings.js'
import { spooledIn } from './helpers/spooled.js'

const ROUTES = [
  ['POST', ''],
  ['GET', ''],
  ['PUT', ''],
  ['GET', '/ID'],
  ['PUT', '/ID'],
  ['PUT', '/ID/attachments/a']
] as const

const deep = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`

/** Invalid bodies of kinds that have broken servers. */
const CORPUS: (string | Buffer)[] = [
  '',
  ' ',
  'null',
  '[]',
  '0',
  '"dbs"',
  '{',
  '{"dbs":',
  '{"dbs":{"components":{"docs":[{"_id":"a"}',
  deep(100_000),
  `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
  `{"${'k'.repeat(200_000)}":1}`,
  `{"dbs":{"${'k'.repeat(100_000)}":{}}}`,
  '{"dbs":{},"dbs":{}}',
  '{"attachment":"a","attachment":"b","x":1}',
  '{"__proto__":{"admin":true}}',
  '{"constructor":{"prototype":{"admin":true}}}',
  '{"dbs":{"__proto__":{"docs":[]}}}',
  '{"dbs":{"constructor":{"docs":[]}}}',
  '{"dbs":{"components":{"docs":[{"__proto__":{}}]}}}',
  '\ufeff\ufeff{"dbs":{}}',
  Buffer.from('{"dbs":{}}', 'utf16le'),
  Buffer.from([0xff, 0xfe, 0x00, 0xd8]),
  Buffer.from([0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 3]),
  '{"dbs":{"components":{"compressed_docs":"AAAA"}}}',
  '{"dbs":{"components":{"compressed_docs":"%%%"}}}',
  '{"dbs":{"components":{"docs":[{"_id":"\\ud800"}]}},"x":1}',
  '{"error":{"toString":1},"dbs":{}}',
  '{"error":[{"toString":"x"}],"dbs":{}}',
  `{"error":"${'e'.repeat(200_000)}","dbs":{}}`,
  '{"client_webhook_url":"javascript:alert(1)"}',
  '{"client_webhook_url":{"toString":1}}'
]

/** Values of the wrong type, or that cannot be converted to a string. */
const ODD = [
  '{"toString":1}',
  '[{"toString":"x"}]',
  '{"__proto__":null}',
  '1e400',
  '"\\ud800"',
  '[[[]]]',
  'true',
  '""'
]

t.test('whatever a backup says of itself, it is restored or refused', async (t) => {
  const host = await buildHost(t)
  const members =
    '_attachments _id _rev backup_version doc_count elapsed end_timestamp error ibp_versions id in_progress start_timestamp storage type client_webhook_url'
  const tally = { restored: 0, refused: 0 }
  for (const member of members.split(' ')) {
    for (const value of ODD) {
      const reply = await host.app.inject({
        method: 'PUT',
        url: '/api/v2/backups',
        headers: { 'content-type': 'application/json', ...host.as('manager') },
        payload: `{"${member}":${value},"dbs":{}}`
      })
      const what = `${member}: ${value}`
      t.ok(reply.statusCode === 202 || reply.statusCode === 400, `${what}: ${reply.statusCode}`)
      t.ok(reply.body.length < 1000, `${what}: a short reply`)
      if (reply.statusCode === 400) tally.refused++
      else {
        t.equal((await host.waitForRestore(reply.json().url)).status, 'success', what)
        tally.restored++
      }
    }
  }
  t.ok(tally.restored > 0 && tally.refused > 0, `${tally.restored} restored, ${tally.refused} refused`)
})

t.test(
  'no request of a client ends in a server error or changes anything',
  { timeout: 90_000 },
  async (t) => {
    const spoolDirectory = t.testdir()
    const host = await buildHost(t, { spoolDirectory, limits: { uploadBytes: 8 * 1024 * 1024 } })
    const { app, on } = host
    const { id, finished } = await app.dbBackups.start()
    await finished
    const state = async () =>
      JSON.stringify(await Promise.all(Object.values(on.names).map((name) => on.couch.db.get(name))))
    const before = await state()

    const call = async (options: Omit<InjectOptions, 'url'> & { url: string }) => {
      const reply = await app.inject({
        ...options,
        url: `/ak/api/v1/backups${options.url.replace('ID', id)}`,
        headers: { 'content-type': 'application/json', ...options.headers, ...host.as('manager') }
      } as InjectOptions)
      const shown = `${options.method} ${options.url} ${String(options.payload).slice(0, 60)}: ${reply.statusCode} ${reply.body.slice(0, 200)}`
      if (reply.statusCode >= 500) t.fail(shown)
      return { reply, shown }
    }
    const refuse = async (options: Parameters<typeof call>[0]) => {
      const { reply, shown } = await call(options)
      if (reply.statusCode < 400) t.fail(`not refused: ${shown}`)
    }
    const WRITES = ROUTES.filter(([method]) => method !== 'GET')

    for (const payload of CORPUS) {
      for (const [method, url] of WRITES) {
        // these two expect an empty body
        const empty =
          ['', 'null', '{}'].includes(String(payload)) && url !== '' && !url.includes('attachments')
        if (empty || (method === 'POST' && ['', 'null'].includes(String(payload)))) continue
        await refuse({ method, url, payload })
      }
    }
    t.pass('the corpus is refused')

    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...WRITES),
        fc.oneof(
          fc.json().filter((text) => text !== 'null' && text.trim() !== '{}'),
          fc.uint8Array({ minLength: 1, maxLength: 200 }).map((bytes) => Buffer.from(bytes))
        ),
        async ([method, url], payload) => refuse({ method, url, payload })
      ),
      { numRuns: cases(extent(25, 50)) }
    )
    t.pass('random bodies are refused')

    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ROUTES),
        fc.string({ minLength: 1, maxLength: 30, unit: character }),
        fc.string({ maxLength: 30, unit: character }),
        async ([method, url], name, value) => {
          const query = `${encodeURIComponent(`x${name.toWellFormed()}`)}=${encodeURIComponent(value.toWellFormed())}`
          await refuse({ method, url: `${url}?${query}`, payload: method === 'GET' ? undefined : '' })
        }
      ),
      { numRuns: cases(extent(20, 40)) }
    )
    t.pass('unknown query parameters are refused')

    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('GET' as const, 'PUT' as const),
        fc.string({ minLength: 1, maxLength: 2000, unit: character }),
        fc.boolean(),
        async (method, name, encoded) => {
          const segment = encoded
            ? encodeURIComponent(name.toWellFormed())
            : name.replace(/[^!-~]|[?#]/g, '%') || '%'
          await refuse({ method, url: `/${segment}`, payload: method === 'GET' ? undefined : '' })
        }
      ),
      { numRuns: cases(extent(25, 50)) }
    )
    t.pass('what is no id is refused')

    const HEADERS = [
      'accept',
      'accept-encoding',
      'authorization',
      'content-encoding',
      'content-type',
      'cookie',
      'expect',
      'forwarded',
      'host',
      'if-match',
      'range',
      'x-forwarded-for',
      'x-forwarded-host',
      'x-forwarded-proto',
      'x-http-method-override'
    ]
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...ROUTES),
        fc.dictionary(fc.constantFrom(...HEADERS), fc.string({ maxLength: 200, unit: character }), {
          minKeys: 1,
          maxKeys: 5
        }),
        async ([method, url], values) => {
          const headers = Object.entries(values).map(([name, value]) => [name, value.replace(/[^ -~]/g, '?')])
          // refused for the query, whatever the headers say
          await refuse({
            method,
            url: `${url}?unknown=1`,
            payload: method === 'GET' ? undefined : '{}',
            headers: Object.fromEntries(headers)
          })
        }
      ),
      { numRuns: cases(extent(25, 50)) }
    )
    t.pass('headers of any value do no harm')

    t.equal(await state(), before, 'nothing was written')
    t.strictSame(await spooledIn(spoolDirectory), [], 'nothing is left on the disk')
    t.equal((await app.inject({ url: '/ak/api/v1/backups', headers: host.as('manager') })).statusCode, 200)
  }
)
