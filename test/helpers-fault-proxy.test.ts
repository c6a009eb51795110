import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type Fault, startFaultProxy } from './helpers/fault-proxy.js'

const BODY = JSON.stringify({ rows: Array.from({ length: 20 }, (_, i) => ({ id: `row ${i}` })) })

async function setup(t: Test) {
  let served = 0
  const server = createServer((request, response) => {
    served++
    request.resume()
    response.setHeader('content-type', 'application/json')
    response.end(BODY)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const proxy = await startFaultProxy(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  t.teardown(async () => {
    await proxy.close()
    server.closeAllConnections()
    server.close()
  })
  const call = async (path = '/a', timeout = 600) => {
    try {
      const reply = await fetch(proxy.url + path, { signal: AbortSignal.timeout(timeout) })
      const text = await reply.text()
      return { status: reply.status, headers: reply.headers, text }
    } catch (error) {
      const { name, cause } = error as Error
      return { failed: name === 'TimeoutError' ? name : ((cause as { code?: string })?.code ?? name) }
    }
  }
  return { proxy, call, served: () => served }
}

t.test('each fault is what it says, once', async (t) => {
  const expected: [Fault, object, number][] = [
    ['refuse', { failed: /UND_ERR_SOCKET|ECONNREFUSED|ECONNRESET/ }, 0],
    ['reset', { failed: /ECONNRESET|UND_ERR_SOCKET/ }, 0],
    ['reset_mid', { failed: /ECONNRESET|UND_ERR_SOCKET/ }, 1],
    ['cut_headers', { failed: /UND_ERR_SOCKET/ }, 1],
    ['cut_mid', { failed: /UND_ERR_SOCKET/ }, 1],
    ['cut_last', { failed: /UND_ERR_SOCKET/ }, 1],
    ['cut_headers_chunked', { failed: /UND_ERR_SOCKET/ }, 1],
    ['cut_mid_chunked', { failed: /UND_ERR_SOCKET/ }, 1],
    ['cut_last_chunked', { failed: /UND_ERR_SOCKET/ }, 1],
    ['short', { status: 200, text: BODY.slice(0, BODY.length >> 1) }, 1],
    ['stall', { failed: 'TimeoutError' }, 0],
    ['stall_mid', { failed: 'TimeoutError' }, 1],
    ['drip', { failed: 'TimeoutError' }, 1],
    ['status_500', { status: 500 }, 0],
    ['status_503', { status: 503 }, 0],
    ['status_429', { status: 429 }, 0],
    ['status_401', { status: 401 }, 0],
    ['wrong_type', { status: 200, text: BODY }, 1],
    ['html', { status: 200, text: /<html>/ }, 0],
    ['duplicate', { status: 200, text: BODY }, 2],
    ['reply_lost', { failed: /ECONNRESET|UND_ERR_SOCKET/ }, 1]
  ]
  const { proxy, call, served } = await setup(t)
  for (const [fault, outcome, requests] of expected) {
    const before = served()
    const rule = proxy.add({ path: /^\/a/, fault })
    t.match(await call(), outcome, fault)
    t.equal(served() - before, requests, `${fault}: requests that the database saw`)
    t.equal(rule.hits, 1)
    if (fault === 'refuse') t.match(await call(), { failed: /ECONNREFUSED/ }, 'nobody listens')
    await proxy.clear()
    t.match(await call('/a', 5000), { status: 200, text: BODY }, `after ${fault}`)
  }
})

t.test('rules match by method, path, body and ordinal', async (t) => {
  const { proxy, call } = await setup(t)
  const rule = proxy.add({ method: 'GET', path: /^\/a b/, nth: 2, times: 2, fault: 'status_500' })
  const statuses = []
  for (const path of ['/a%20b', '/c', '/a%20b', '/a%20b?x=1', '/a%20b'])
    statuses.push((await call(path)).status)
  t.same(statuses, [200, 200, 500, 500, 200])
  t.equal(rule.hits, 2)
  await proxy.clear()

  const lasting = proxy.add({ body: /"no"/, times: Number.POSITIVE_INFINITY, fault: 'status_503' })
  const post = async (body: string) => (await fetch(proxy.url, { method: 'POST', body })).status
  t.same([await post('"yes"'), await post('"no"'), await post('"no"')], [200, 503, 503])
  t.equal(lasting.hits, 2)
})

t.test('holds requests back', async (t) => {
  const { proxy, call } = await setup(t)
  const release = proxy.hold({ path: /^\/a/ })
  let answered = false
  const held = call('/a', 5000).then((reply) => {
    answered = true
    return reply
  })
  t.match(await call('/b'), { status: 200 })
  await delay(50)
  t.notOk(answered)
  release()
  t.match(await held, { status: 200, text: BODY })
})
