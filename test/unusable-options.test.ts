import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import Fastify, { type FastifyInstance } from 'fastify'
import nano, { type ServerScope } from 'nano'
import t, { type Test } from 'tap'
import dbBackups, { createCouchWebhookStore, createMemoryWebhookStore } from '../lib/index.js'
import type { DbBackupsOptions } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

const URL = 'http://127.0.0.1:9'
const names = { components: 'a', sessions: 'b', system: 'c' }

async function register(t: Test, options: object): Promise<void> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(dbBackups, {
    couch: nano(URL),
    databases: names,
    authorize: () => {},
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => {},
    ...options
  } as DbBackupsOptions)
}

const quietly = <T>(call: () => T): T => {
  const { error } = console
  console.error = () => {}
  try {
    return call()
  } finally {
    console.error = error
  }
}

/** Values that are not a scope of a server, with what the message must say. */
const COUCHES: Record<string, [couch: () => unknown, message: RegExp]> = {
  null: [() => null, /"couch" must be a nano server scope, .*none/],
  'a URL': [() => URL, /"couch" must be a nano server scope/],
  'a promise': [() => Promise.reject(new Error('late')), /"couch" .*promise/],
  'a database': [() => nano(URL).use('x'), /"couch" .*database "x".*parseUrl: false/],
  'a server below a path': [() => nano(`${URL}/_couchdb`), /"couch" .*database "_couchdb".*parseUrl: false/],
  requestDefaults: [
    () => quietly(() => nano({ url: URL, requestDefaults: { timeout: 1 } } as never)),
    /"couch" .*requestDefaults.*agentOptions/
  ],
  'an agent that is no dispatcher': [
    () => nano({ url: URL, agentOptions: { rejectUnauthorized: false } } as never),
    /"couch" .*agentOptions.*undici/
  ]
}

t.test('a couch that cannot be used ends the registration, naming option and remedy', async (t) => {
  for (const [name, [couch, message]] of Object.entries(COUCHES)) {
    await t.rejects(register(t, { couch: couch() }), { name: 'TypeError', message }, name)
    if (name === 'null') continue
    await t.rejects(register(t, { couch }), { name: 'TypeError', message }, `a function that gives ${name}`)
    t.throws(() => createCouchWebhookStore({ couch: couch() as never, database: 'x' }), TypeError)
  }
  await t.resolves(register(t, { couch: nano({ url: `${URL}/_couchdb`, parseUrl: false } as never) }))
})

t.test('a prefix of which no URL can be made is refused, also one around the plugin', async (t) => {
  const refused = { name: 'TypeError', message: /"prefix".*"[^"]*tenant/ }
  for (const prefix of ['/:tenant', '/*tenant', '/a b/tenant', '/é/tenant'])
    await t.rejects(register(t, { prefix }), refused, prefix)
  const app = Fastify()
  t.teardown(() => app.close())
  const options = { couch: nano(URL), databases: names, authorize: () => {}, rebuildWhitelist: () => {} }
  const inside = async (scope: FastifyInstance) => {
    await scope.register(dbBackups, { ...options, webhooks: createMemoryWebhookStore() })
  }
  app.register(inside, { prefix: '/:tenant' })
  await t.rejects(async () => app.ready(), refused)
  for (const prefix of ['/console', 'console/', '/', '//x', '/a~b-c.d_e/%C3%A9'])
    await t.resolves(register(t, { prefix }), prefix)
})

t.test('a function may have nothing to give until there is a request, which is told then', async (t) => {
  let give: () => unknown = () => null
  const host = await buildHost(t, { couch: () => give() as ServerScope })
  const api = apiOf(host)
  const refused = async (message: RegExp) => {
    const reply = await api.call('GET')
    t.equal(reply.statusCode, 500)
    t.match(reply.json(), { code: 'DB_BACKUPS_HOST_VALUE', message })
  }
  await refused(/couch gave no nano server scope/)
  give = () => host.on.couch.use('x')
  await refused(/couch gave the scope of the database "x"/)
  give = async () => host.on.couch
  await refused(/couch gave a promise/)
  give = () => host.on.couch
  t.equal((await api.call('GET')).statusCode, 200)
})

t.test('a function that throws while the host starts is asked again', async (t) => {
  let ready = false
  const on = (await buildHost(t)).on
  const host = await buildHost(t, {
    on,
    couch() {
      if (!ready) throw new Error('not yet')
      return on.couch
    }
  })
  ready = true
  t.equal((await apiOf(host).call('GET')).statusCode, 200)
})

t.test('a spool directory that cannot be used ends the registration', async (t) => {
  const directory = t.testdir()
  const file = join(directory, 'file')
  await writeFile(file, '')
  const message = /option "spoolDirectory"/
  await t.rejects(register(t, { spoolDirectory: join(directory, 'missing') }), { message })
  await t.rejects(register(t, { spoolDirectory: file }), { message })
  await t.resolves(register(t, { spoolDirectory: directory }))
})

t.test('names of databases that come by a promise, or are none, end the registration', async (t) => {
  const late = async () => names
  await t.rejects(register(t, { databases: late }), { message: /option "databases" .*not a promise/ })
  await t.rejects(register(t, { publicUrl: async () => URL }), {
    message: /option "publicUrl" .*not a promise/
  })
  for (const database of [undefined, '', 'Not OK', () => 'x', 5])
    t.throws(() => createCouchWebhookStore({ couch: nano(URL), database: database as never }), {
      name: 'TypeError',
      message: /database/
    })
})

t.test('two databases of one name end the registration', async (t) => {
  const message = /option "databases\.(components|sessions|system)" names the database of/
  for (const same of [
    { components: 'a', sessions: 'a' },
    { components: 'a', system: 'a' },
    { sessions: 'a', system: 'a' }
  ]) {
    await t.rejects(
      register(t, { databases: { ...{ components: 'x', sessions: 'y', system: 'z' }, ...same } }),
      { message }
    )
  }
})
