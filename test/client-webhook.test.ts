import dns from 'node:dns'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { guardedLookup } from '../lib/webhooks/address.js'
import { Notifier } from '../lib/webhooks/notifier.js'
import type { WebhookDelivery, WebhookTransaction } from '../types/index.js'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost, type HostOptions, type TestHost } from './helpers/host.js'
import { listen } from './helpers/listen.js'

interface Received {
  method: string | undefined
  url: string | undefined
  headers: IncomingHttpHeaders
  body: string
}

/** Starts a receiver of webhooks. `answer` gets the number of earlier requests. */
async function startReceiver(t: Test, answer: (response: ServerResponse, before: number) => void) {
  const received: Received[] = []
  const server = createServer(async (request, response) => {
    const body = Buffer.concat(await request.toArray()).toString()
    const { method, url, headers } = request
    received.push({ method, url, headers, body })
    answer(response, received.length - 1)
  })
  return { received, url: await listen(t, server) }
}

const with200 = (response: ServerResponse) => response.end('ok')

/** Restores with a webhook, and waits until the outcome of its delivery is recorded. */
async function deliver(
  host: TestHost,
  url: string
): Promise<WebhookTransaction & { client_webhook: WebhookDelivery }> {
  const { tx_id } = await apiOf(host).restore(backupOf([{ _id: 'a' }], { client_webhook_url: url }))
  for (;;) {
    const transaction = await host.webhooks.get(tx_id)
    if (transaction?.client_webhook && !transaction.client_webhook.pending) return transaction as never
    await delay(20)
  }
}

async function consoleWith(t: Test, clientWebhook: HostOptions['clientWebhook'] = {}): Promise<TestHost> {
  return buildHost(t, { clientWebhook: { attempts: 2, timeout: 500, ...clientWebhook } })
}

t.test('receives the finished transaction', async (t) => {
  const { received, url } = await startReceiver(t, with200)
  const host = await consoleWith(t)
  const transaction = await deliver(host, `${url}/hook?key=1`)
  t.strictSame(transaction.client_webhook, { attempts: 1, delivered: true, last_status: 200 })
  t.equal(transaction.client_webhook_url, `${url}/hook?key=1`)
  t.equal(received.length, 1)
  t.match(received[0], {
    method: 'POST',
    url: '/hook?key=1',
    headers: { 'content-type': 'application/json' }
  })
  const body = JSON.parse(received[0]!.body)
  t.match(body, {
    tx_id: transaction.tx_id,
    type: 'webhook_tx',
    status: 'success',
    on_step: 5,
    total_steps: 5,
    ts_completed: Number,
    databases: { components: { total: 1, created: 1, failed: 0 } }
  })
  t.notOk('client_webhook_url' in body)
})

t.test('receives the transaction of a stored backup, and of a restore that failed', async (t) => {
  const { received, url } = await startReceiver(t, with200)
  const host = await buildHost(t, {
    rebuildWhitelist() {
      throw new Error('no peers')
    }
  })
  const api = apiOf(host)
  const id = await api.backup()
  const reply = await api.call('PUT', `/${id}`, { client_webhook_url: `${url}/` })
  t.equal(reply.statusCode, 202)
  const { tx_id } = await host.waitForRestore(reply.json().url)
  while ((await host.webhooks.get(tx_id))?.client_webhook?.delivered !== true) await delay(20)
  t.match(JSON.parse(received[0]!.body), { tx_id, backup_id: id, status: 'error' })
})

t.test('is tried again after a fault that may pass', async (t) => {
  const { received, url } = await startReceiver(t, (response, before) => {
    response.statusCode = before === 0 ? 500 : 204
    response.end()
  })
  const transaction = await deliver(await consoleWith(t), url)
  t.strictSame(transaction.client_webhook, { attempts: 2, delivered: true, last_status: 204 })
  t.equal(received.length, 2)
  t.equal(received[0]!.body, received[1]!.body)
})

t.test('is given up after the attempts, and the restore is still a success', async (t) => {
  const { received, url } = await startReceiver(t, (response) => response.writeHead(503).end())
  const transaction = await deliver(await consoleWith(t), url)
  t.equal(transaction.status, 'success')
  t.strictSame(transaction.client_webhook, {
    attempts: 2,
    delivered: false,
    last_status: 503,
    last_error: 'the receiver answered 503'
  })
  t.equal(received.length, 2)
})

t.test('is not tried again after a refusal', async (t) => {
  const { received, url } = await startReceiver(t, (response) => response.writeHead(404).end())
  const { client_webhook } = await deliver(await consoleWith(t, { attempts: 3 }), url)
  t.match(client_webhook, { attempts: 1, delivered: false, last_status: 404 })
  t.equal(received.length, 1)
})

t.test('every status that may pass is tried again, and no other', async (t) => {
  const { received, url } = await startReceiver(t, (response) => {
    response.writeHead(Number(response.req.url!.slice(1))).end()
  })
  const notifier = new Notifier({ attempts: 2 })
  t.teardown(() => notifier.close())
  const attempts = async (status: number) => {
    const transaction = { client_webhook_url: `${url}/${status}` } as WebhookTransaction
    const delivery = await notifier.deliver(transaction, async () => undefined)
    t.match(delivery, { delivered: false, last_status: status, attempts: Number })
    t.equal(received.filter((request) => request.url === `/${status}`).length, delivery.attempts)
    return delivery.attempts
  }
  const passing = [408, 429, 500, 502, 503, 504, 599]
  const final = [300, 304, 400, 401, 403, 404, 407, 409, 410, 413, 428, 430, 451, 499]
  t.strictSame(
    await Promise.all(passing.map(attempts)),
    passing.map(() => 2)
  )
  t.strictSame(
    await Promise.all(final.map(attempts)),
    final.map(() => 1)
  )
})

t.test('a redirect is not followed', async (t) => {
  const target = await startReceiver(t, with200)
  for (const status of [301, 302, 303, 307, 308]) {
    const { received, url } = await startReceiver(t, (response) =>
      response.writeHead(status, { location: target.url }).end()
    )
    const { client_webhook } = await deliver(await consoleWith(t), url)
    t.match(client_webhook, { attempts: 1, delivered: false, last_status: status })
    t.equal(received.length, 1)
  }
  t.equal(target.received.length, 0)
})

t.test('a receiver that does not answer is not waited for', async (t) => {
  const { received, url } = await startReceiver(t, () => {})
  const startedAt = performance.now()
  const { client_webhook } = await deliver(
    await consoleWith(t, { attempts: 1, timeout: 200 }),
    `${url}/secret`
  )
  t.match(client_webhook, { attempts: 1, delivered: false, last_error: String })
  t.notMatch(client_webhook.last_error, /secret/)
  t.ok(performance.now() - startedAt < 5000)
  t.equal(received.length, 1)
})

t.test('the body of the answer is not read', async (t) => {
  const { url } = await startReceiver(t, (response) => {
    const more = () => {
      while (response.write('x'.repeat(65_536)));
      response.once('drain', more)
    }
    more()
  })
  const { client_webhook } = await deliver(await consoleWith(t), url)
  t.strictSame(client_webhook, { attempts: 1, delivered: true, last_status: 200 })
})

t.test('a receiver that is not there', async (t) => {
  const { client_webhook } = await deliver(await consoleWith(t, { attempts: 1 }), 'http://127.0.0.1:9/')
  t.match(client_webhook, { attempts: 1, delivered: false, last_error: 'ECONNREFUSED' })
})

const REFUSED = [
  '169.254.169.254',
  '169.254.0.1',
  '2852039166',
  '0xa9fea9fe',
  '0xa9.0xfe.0xa9.0xfe',
  '0251.0376.0251.0376',
  '169.254.43518',
  '169.254.169.254.',
  '%31%36%39.254.169.254',
  '１６９.254.169.254',
  '0.0.0.0',
  '0',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  '224.0.0.1',
  '255.255.255.255',
  '[::]',
  '[::ffff:169.254.169.254]',
  '[::ffff:a9fe:a9fe]',
  '[0:0:0:0:0:ffff:a9fe:a9fe]',
  '[::169.254.169.254]',
  '[::ffff:0:169.254.169.254]',
  '[64:ff9b::169.254.169.254]',
  '[64:ff9b::a9fe:a9fe]',
  '[64:ff9b:1::a9fe:a9fe]',
  '[64:ff9b:1:a9fe:0:a9fe::]',
  '[2001:0:4136:e378:8000:63bf:5601:5601]',
  '[2002:a9fe:a9fe::1]',
  '[fe80::1]',
  '[FE80::1]',
  '[febf::1]',
  '[fd00:ec2::254]',
  '[ff02::1]'
]

t.test('addresses that must not be called are refused before anything is done', async (t) => {
  const host = await consoleWith(t)
  const api = apiOf(host)
  const id = await api.backup()
  for (const address of REFUSED) {
    const client_webhook_url = `http://${address}/latest/meta-data`
    for (const path of ['', `/${id}`]) {
      const body = path ? { client_webhook_url } : backupOf([{ _id: 'a' }], { client_webhook_url })
      const reply = await api.call('PUT', path, body)
      t.equal(reply.statusCode, 400, `${address} ${path}`)
      t.equal(reply.json().message, 'client_webhook_url is an address that must not be called')
    }
  }
  t.equal((await host.on.fetchAll(host.on.names.components)).size, 0)
})

t.test('other URLs that cannot be called are refused', async (t) => {
  const host = await consoleWith(t)
  const api = apiOf(host)
  const id = await api.backup()
  const wrong: [url: string, problem: string][] = [
    ['', 'is not a URL'],
    ['/hook', 'is not a URL'],
    ['//example.com/', 'is not a URL'],
    ['http://', 'is not a URL'],
    ['ftp://example.com/', 'is not an http(s) URL'],
    ['javascript:alert(1)', 'is not an http(s) URL'],
    ['http://user@example.com/', 'must not hold credentials'],
    ['http://user:password@example.com/', 'must not hold credentials'],
    [`http://example.com/${'x'.repeat(2048)}`, 'is longer than 2048 characters']
  ]
  for (const [client_webhook_url, problem] of wrong) {
    const reply = await api.call('PUT', `/${id}`, { client_webhook_url })
    t.equal(reply.statusCode, 400, client_webhook_url.slice(0, 40))
    t.equal(reply.json().message, `client_webhook_url ${problem}`)
    t.notMatch(reply.body, /password/)
  }
})

t.test('the host may narrow which URLs are called', async (t) => {
  const { received, url } = await startReceiver(t, with200)
  const asked: string[] = []
  const host = await consoleWith(t, {
    async allow({ href, pathname }) {
      asked.push(href)
      return pathname === '/allowed'
    }
  })
  const reply = await apiOf(host).call(
    'PUT',
    '',
    backupOf([{ _id: 'a' }], { client_webhook_url: `${url}/other` })
  )
  t.equal(reply.statusCode, 400)
  t.equal(reply.json().message, 'client_webhook_url is not allowed by this server')
  t.match((await deliver(host, `${url}/allowed`)).client_webhook, { delivered: true })
  t.strictSame(
    received.map(({ url: path }) => path),
    ['/allowed']
  )
  const before = asked.length
  const metadata = { client_webhook_url: 'http://169.254.169.254/allowed' }
  t.equal((await apiOf(host).call('PUT', '', backupOf([], metadata))).statusCode, 400, 'and cannot widen it')
  t.equal(asked.length, before)
})

t.test('a host that does not say whether a URL is allowed refuses it', async (t) => {
  const { received, url } = await startReceiver(t, with200)
  let answers = true
  const host = await consoleWith(t, {
    timeout: 200,
    allow: () => (answers ? true : new Promise<boolean>(() => {}))
  })
  const id = await apiOf(host).backup()
  answers = false
  for (const [path, body] of [
    ['', backupOf([{ _id: 'a' }], { client_webhook_url: url })],
    [`/${id}`, { client_webhook_url: url }]
  ] as const) {
    const reply = await apiOf(host).call('PUT', path, body)
    t.equal(reply.statusCode, 400)
    t.equal(reply.json().message, 'client_webhook_url could not be checked in time')
  }
  t.equal(received.length, 0)
})

t.test('a name is checked by the addresses it has when it is called', async (t) => {
  const lookup = (name: string) =>
    new Promise((resolve, reject) => {
      guardedLookup(name, { all: true }, (error, addresses) => (error ? reject(error) : resolve(addresses)))
    })
  await t.rejects(lookup('169.254.169.254'), { name: 'RefusedUrlError' })
  await t.rejects(lookup('fe80::1'), { name: 'RefusedUrlError' })
  t.match(await lookup('127.0.0.1'), [{ address: '127.0.0.1', family: 4 }])
})

/** Lets names in `.test` resolve to these addresses, one after another. Returns a function that counts the look-ups. */
function answerNames(t: Test, ...answers: string[][]): () => number {
  const { lookup } = dns
  let asked = 0
  dns.lookup = ((name: string, options: dns.LookupAllOptions, callback: (...all: unknown[]) => void) => {
    if (!name.endsWith('.test')) return lookup(name, options, callback as never)
    const addresses = answers[Math.min(asked++, answers.length - 1)]
    callback(
      null,
      addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
    )
  }) as typeof dns.lookup
  t.teardown(() => {
    dns.lookup = lookup
  })
  return () => asked
}

const NAMED = 'the URL names an address that must not be called'

t.test('a name whose address changes is refused as soon as it does', async (t) => {
  const { received, url } = await startReceiver(t, (response) => response.writeHead(500).end())
  const asked = answerNames(t, ['127.0.0.1'], ['169.254.169.254'])
  const { client_webhook } = await deliver(
    await consoleWith(t, { attempts: 3 }),
    url.replace('127.0.0.1', 'rebinding.test')
  )
  t.match(client_webhook, { attempts: 2, delivered: false, last_status: 500, last_error: NAMED })
  t.equal(received.length, 1)
  t.equal(asked(), 2, 'asked once for each connection: what was checked is what is connected to')
})

t.test('a name with an address that must not be called is not called', async (t) => {
  for (const address of [
    '169.254.169.254',
    '::ffff:169.254.169.254',
    '::ffff:a9fe:a9fe',
    '64:ff9b::a9fe:a9fe',
    'fe80::1%lo',
    '0.0.0.0',
    '::'
  ]) {
    await t.test(address, async (t) => {
      const { received, url } = await startReceiver(t, with200)
      answerNames(t, ['127.0.0.1', address])
      const { client_webhook } = await deliver(
        await consoleWith(t, { attempts: 3 }),
        url.replace('127.0.0.1', 'metadata.test')
      )
      t.strictSame(client_webhook, { attempts: 1, delivered: false, last_error: NAMED })
      t.equal(received.length, 0)
    })
  }
})

t.test('an answer whose headers have no end is not waited for', async (t) => {
  const endings: Record<string, (socket: Socket) => void> = {
    'dripping headers': (socket) => {
      socket.write('HTTP/1.1 200 OK\r\nx-a: ')
      const timer = setInterval(() => socket.write('a'), 20)
      socket.on('close', () => clearInterval(timer))
    },
    'endless headers': (socket) => {
      socket.write('HTTP/1.1 200 OK\r\n')
      const more = () => {
        while (socket.write(`x-a: ${'a'.repeat(1000)}\r\n`));
        socket.once('drain', more)
      }
      more()
    },
    'interim answers without end': (socket) => {
      const timer = setInterval(() => socket.write('HTTP/1.1 102 Processing\r\n\r\n'), 20)
      socket.on('close', () => clearInterval(timer))
    },
    'no HTTP': (socket) => void socket.end('220 mail.example.com ESMTP\r\n')
  }
  for (const [what, answer] of Object.entries(endings)) {
    const sockets = new Set<Socket>()
    const server = createTcpServer((socket) => {
      sockets.add(socket.on('error', () => undefined))
      socket.once('data', () => answer(socket))
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => {
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    const { port } = server.address() as AddressInfo
    const startedAt = performance.now()
    const host = await consoleWith(t, { attempts: 1, timeout: 400 })
    const { client_webhook } = await deliver(host, `http://127.0.0.1:${port}/`)
    t.match(client_webhook, { attempts: 1, delivered: false, last_error: String }, what)
    t.ok(performance.now() - startedAt < 10_000, what)
    while ([...sockets].some((socket) => !socket.closed)) await delay(10)
    t.pass(`${what}: the connection was closed`)
  }
})
