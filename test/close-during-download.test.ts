import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { WebhookTransaction } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'

const PATIENCE = 30_000

/** Builds a host, and requests a backup larger than what sockets hold without reading it. */
async function setup(t: Test) {
  const on = await setupDatabases(t)
  const components = on.couch.use(on.names.components)
  const text = 'x'.repeat(1024 * 1024)
  for (let i = 0; i < 24; i++) await components.insert({ _id: `d${i}`, text } as object)
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch, timeouts: { close: 1000 } })
  const api = apiOf(host)
  const id = await api.backup()
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const download = connect((host.app.server.address() as AddressInfo).port, '127.0.0.1')
  download.on('error', () => undefined)
  t.teardown(() => download.destroy())
  download.write(`GET /api/v3/backups/${id} HTTP/1.1\r\nhost: x\r\nx-role: manager\r\n\r\n`)
  await once(download, 'readable')
  const until = async (done: () => Promise<boolean>) => {
    const end = Date.now() + PATIENCE
    while (!(await done())) {
      if (Date.now() > end) throw new Error('waited in vain')
      await delay(20)
    }
  }
  return {
    host,
    gate,
    api,
    id,
    download,
    until,
    read: async (document: string) => (await on.couch.use(on.names.system).get(document)) as unknown as object
  }
}

t.test('a closing server records what it stops while a download still runs', async (t) => {
  await t.test('a backup', async (t) => {
    const { host, gate, download, until, read } = await setup(t)
    const release = gate.hold(/_changes/)
    const { id, finished } = await host.app.dbBackups.start()
    finished.catch(() => undefined)
    await gate.held(/_changes/)
    let closed = false
    const closing = host.app.close().then(() => {
      closed = true
    })
    await until(async () => !((await read(id)) as { in_progress: boolean }).in_progress)
    t.match(await read(id), { error: /^interrupted: the server was shut down/ })
    await until(async () => !('operation' in (await read('athena_backup_lease'))))
    t.notOk(closed, 'the download is waited for')
    t.notOk(download.readableEnded)
    download.destroy()
    await closing
    release()
  })

  await t.test('a restore', async (t) => {
    const { host, gate, id, download, until, read } = await setup(t)
    const release = gate.hold(/_all_docs\?limit/)
    const { tx_id, finished } = await host.app.dbBackups.restore({ id })
    finished.catch(() => undefined)
    await gate.held(/_all_docs\?limit/)
    let closed = false
    const closing = host.app.close().then(() => {
      closed = true
    })
    const ended = async () => (await host.webhooks.get(tx_id)) as WebhookTransaction
    await until(async () => (await ended()).status !== 'pending')
    t.match(await ended(), {
      status: 'error',
      athena_messages: [/./, /./, /^interrupted: the server was shut down/]
    })
    await until(async () => !('operation' in (await read('athena_backup_lease'))))
    t.notOk(closed, 'the download is waited for')
    download.destroy()
    await closing
    release()
  })
})
