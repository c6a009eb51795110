import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import t from 'tap'
import { createMemoryWebhookStore } from '../lib/index.js'
import type { WebhookTransaction } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

t.test('a client that could not be told before the server stopped is told by the next one', async (t) => {
  const received: WebhookTransaction[] = []
  let answering = false
  let asked = 0
  const receiver = createServer(async (request, response) => {
    asked++
    if (!answering) return
    received.push((await json(request)) as WebhookTransaction)
    response.end()
  })
  receiver.listen(0, '127.0.0.1')
  await once(receiver, 'listening')
  t.teardown(() => {
    receiver.closeAllConnections()
    receiver.close()
  })
  const clientWebhookUrl = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/done`

  const on = await setupDatabases(t)
  const webhooks = createMemoryWebhookStore()
  const timeouts = { lease: 2000, close: 1000 }
  const first = await buildHost(t, { on, webhooks, timeouts })
  const backup = await first.app.dbBackups.start()
  await backup.finished
  const { tx_id: txId, finished } = await first.app.dbBackups.restore({ id: backup.id }, { clientWebhookUrl })
  await finished
  while (asked === 0) await new Promise((resolve) => setTimeout(resolve, 10))
  await first.app.close()
  t.equal((await webhooks.get(txId))?.client_webhook, undefined, 'the first server did not succeed')

  answering = true
  await buildHost(t, { on, webhooks, timeouts })
  let transaction = await webhooks.get(txId)
  for (let i = 0; i < 1500 && !transaction?.client_webhook; i++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    transaction = await webhooks.get(txId)
  }
  t.match(transaction?.client_webhook, { delivered: true, last_status: 200 })
  t.match(received, [{ tx_id: txId, status: 'success' }])
  t.notOk(received[0].client_webhook_url, 'the URL is not sent back')
})
