import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import nano from 'nano'
import t from 'tap'
import { CouchClient } from '../lib/couch/client.js'
import { connectionOf } from '../lib/couch/connection.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { createMemoryWebhookStore } from '../lib/index.js'
import type { WebhookStore } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

t.test('a body that is still being sent when the right to write ends stays incomplete', async (t) => {
  const ends: string[] = []
  const server = createServer(async (request, response) => {
    const received = await request.toArray().then(
      () => 'whole',
      () => 'cut'
    )
    ends.push(received)
    response.setHeader('content-type', 'application/json')
    response.end('{"ok":true,"rev":"2-a"}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const couch = nano(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  let allowed = true
  const client = new CouchClient({
    connect: () => connectionOf(couch),
    retry: { attempts: 1, wait: 1, longest: 1 },
    control: 5000,
    idle: 5000,
    beforeWrite() {
      if (!allowed) throw new Error('the lease is lost')
    }
  })
  t.teardown(() => client.close())
  const db = new CouchDatabase(client, 'db')
  const put = (loses: boolean) =>
    db.putAttachmentStream('doc', 'a', '1-a', 'application/gzip', async function* () {
      yield Buffer.alloc(1000)
      if (loses) allowed = false
      yield Buffer.alloc(1000)
    })
  await put(false)
  await t.rejects(put(true), { message: /unreachable/ } as never)
  while (ends.length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
  t.strictSame(ends, ['whole', 'cut'])
})

t.test('a restore that lost its lease while its transaction was read does not end it', async (t) => {
  const on = await setupDatabases(t)
  const memory = createMemoryWebhookStore()
  const system = on.couch.use(on.names.system)
  const asked: unknown[] = []
  let atEnd = false
  const webhooks: WebhookStore = {
    ...memory,
    async get(txId) {
      const transaction = await memory.get(txId)
      if (atEnd) {
        atEnd = false
        // Another instance takes the lease over, and this one finds out.
        const lease = (await system.get('athena_backup_lease')) as unknown as { claim: string }
        await system.insert({ ...lease, claim: 'other', after: lease.claim, beat: 0 } as object)
        await new Promise((resolve) => setTimeout(resolve, 2000))
      }
      return transaction
    },
    async update(txId, update) {
      asked.push(update.status)
      return memory.update(txId, update)
    }
  }
  const host = await buildHost(t, {
    on,
    webhooks,
    timeouts: { lease: 2000 },
    rebuildWhitelist() {
      atEnd = true
    }
  })
  const { finished } = await host.app.dbBackups.restore({ body: bodyOf(backupOf([{ _id: 'a' }])) })
  await t.rejects(finished, { message: 'another server instance has taken over' })
  t.notOk(asked.includes('success'), 'it is not said to be a success')
  t.notOk(asked.includes('error'), 'whoever took over says how it ended')
  t.equal((await apiOf(host).call('GET')).statusCode, 200)
})

const bodyOf = (backup: object) => Readable.from([Buffer.from(JSON.stringify(backup))], { objectMode: false })
