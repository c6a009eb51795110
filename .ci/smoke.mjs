/**
 * Runs in a project that has the package installed: over real HTTP, with the databases at COUCHDB_URL, backs up,
 * restores by id and from an upload, and compares. Ends with the version of Node.js.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createRequire } from 'node:module'
import { setTimeout as delay } from 'node:timers/promises'
import Fastify from 'fastify'
import dbBackups, { createCouchWebhookStore } from 'fastify-couchdb-backups'
import nano from 'nano'

const required = createRequire(import.meta.url)('fastify-couchdb-backups')
const prefix = `t${randomBytes(6).toString('hex')}_`
const databases = {
  components: `${prefix}components`,
  sessions: `${prefix}sessions`,
  system: `${prefix}system`
}
const couch = nano(process.env.COUCHDB_URL)

/** Registers what `import` or `require` gave. */
async function server(plugin) {
  const app = Fastify()
  app.register(plugin, {
    couch,
    databases,
    authorize(request) {
      if (request.headers.authorization !== 'Bearer smoke') {
        throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
      }
    },
    webhooks: createCouchWebhookStore({ couch, database: databases.system }),
    rebuildWhitelist: () => {}
  })
  const origin = await app.listen({ host: '127.0.0.1', port: 0 })
  async function call(method, path = '', body = undefined) {
    const reply = await fetch(`${origin}/api/v3/backups${path}`, {
      method,
      headers: { authorization: 'Bearer smoke', 'content-type': 'application/json' },
      body
    })
    assert.ok(reply.ok, `${method} ${path}: ${reply.status}`)
    return reply
  }
  async function restored(reply) {
    const { url } = await reply.json()
    const id = url.slice(url.lastIndexOf('/') + 1)
    const transaction = await until(async () => {
      const found = await couch.use(databases.system).get(id)
      return found.status !== 'pending' && found
    })
    assert.equal(transaction.status, 'success', transaction.athena_messages.join(', '))
    return transaction
  }
  return { app, call, restored }
}

async function until(read) {
  for (let i = 0; i < 600; i++) {
    const value = await read()
    if (value) return value
    await delay(50)
  }
  throw new Error('it did not end')
}

async function contents() {
  const { rows } = await couch.use(databases.components).list({ include_docs: true, attachments: true })
  return rows.map(({ doc: { _id, _rev, _attachments, ...members } }) => ({
    _id,
    members,
    attachments: Object.entries(_attachments ?? {}).map(([name, { data }]) => [name, data])
  }))
}

async function damage() {
  const db = couch.use(databases.components)
  const { _rev } = await db.get('doc_1')
  await db.destroy('doc_1', _rev)
  await db.insert({ ...(await db.get('doc_2')), number: -1 })
}

async function roundTrip(plugin) {
  const { app, call, restored } = await server(plugin)
  try {
    const before = await contents()
    const { id } = await (await call('POST')).json()
    const backup = await until(async () => {
      const summary = await app.dbBackups.summary(id)
      return !summary.in_progress && summary
    })
    assert.equal(backup.error, undefined)
    const upload = await (await call('GET', `/${id}`)).text()
    for (const restore of [() => call('PUT', `/${id}`), () => call('PUT', '', upload)]) {
      await damage()
      assert.notDeepEqual(await contents(), before)
      const { databases: counts } = await restored(await restore())
      assert.deepEqual(await contents(), before)
      const { created, changed, failed } = counts.components
      assert.deepEqual({ created, changed, failed }, { created: 1, changed: 1, failed: 0 })
    }
  } finally {
    await app.close()
  }
}

for (const name of Object.values(databases)) await couch.db.create(name)
try {
  await couch.use(databases.components).bulk({
    docs: Array.from({ length: 300 }, (_, number) => ({
      _id: `doc_${number}`,
      type: 'fabric-peer',
      number,
      ...(number % 50 === 0 && {
        _attachments: {
          'a.txt': { content_type: 'text/plain', data: Buffer.from(`of ${number}`).toString('base64') }
        }
      })
    }))
  })
  for (const plugin of [dbBackups, required]) await roundTrip(plugin)
} finally {
  for (const name of Object.values(databases)) await couch.db.destroy(name)
}
console.log(process.version)
