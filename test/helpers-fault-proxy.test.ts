import { createServer } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { type Fault, startFaultProxy } from './helpers/fault-proxy.js'
import { listen } from './helpers/listen.js'
import { startRawCouch } from './helpers/raw-couch.js'

const BODY = JSON.stringify({ rows: Array.from({ length: 20 }, (_, i) => ({ id: `row ${i}` })) })

async function setup(t: Test) {
  let served = 0
  const server = createServer((request, response) => {
    served++
    request.resume()
    response.setHeader('content-type', 'application/json')
    response.end(BODY)
  })
  const proxy = await startFaultProxy(t, await listen(t, server))
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

t.test('faults of a cluster are what they say', async (t) => {
  const couch = await startRawCouch()
  t.teardown(() => couch.close())
  const proxy = await startFaultProxy(t, couch.url)
  const call = async (method: string, path: string, json?: object) => {
    const reply = await fetch(proxy.url + path, {
      method,
      headers: { 'content-type': 'application/json' },
      body: json && JSON.stringify(json),
      signal: AbortSignal.timeout(1000)
    })
    return { status: reply.status, json: await reply.json() }
  }
  const bulk = (...ids: string[]) => call('POST', '/db/_bulk_docs', { docs: ids.map((_id) => ({ _id })) })
  const is = (id: string) => couch.document('db', id) !== undefined
  await call('PUT', '/db')

  await t.test('accepted', async (t) => {
    proxy.add({ fault: 'accepted', times: 2 })
    t.match(await call('PUT', '/db/accepted', {}), { status: 202, json: { ok: true, rev: /^1-/ } })
    t.match(await bulk('accepted 2'), { status: 202, json: [{ ok: true, accepted: true }] })
    t.ok(is('accepted') && is('accepted 2'), 'they are written')
  })

  await t.test('shard_500', async (t) => {
    proxy.add({ fault: 'shard_500', times: 2 })
    t.match(await call('PUT', '/db/lost', {}), { status: 500, json: { error: 'internal_server_error' } })
    const { status, json } = await bulk('done', 'lost')
    t.equal(status, 500)
    t.match(json, [
      { id: 'done', ok: true },
      { id: 'lost', error: 'unknown_error', reason: 'internal_server_error' }
    ])
    t.ok(is('done'))
    t.notOk(is('lost'))
  })

  await t.test('nodedown and storms', async (t) => {
    for (const [fault, status, error] of [
      ['nodedown', 412, 'nodedown'],
      ['precondition_storm', 412, 'precondition_failed'],
      ['conflict_storm', 409, 'conflict']
    ] as const) {
      proxy.add({ fault, path: /storm/, times: 2 })
      if (fault !== 'nodedown') t.match(await call('GET', '/db?storm'), { status: 200 }, 'writes only')
      t.match(await call('PUT', '/db/storm', {}), { status, json: { error } })
      t.match(await call('PUT', '/db/storm', {}), { status, json: { error } })
      t.notOk(is('storm'))
    }
    proxy.add({ fault: 'conflict_storm' })
    t.match(await bulk('a', 'b'), { status: 201, json: [{ error: 'conflict' }, { error: 'conflict' }] })
    t.notOk(is('a'))
  })

  await t.test('effect_no_answer', async (t) => {
    const rule = proxy.add({ fault: 'effect_no_answer' })
    await t.rejects(call('PUT', '/db/effect', {}), { name: 'TimeoutError' })
    t.ok(is('effect'))
    t.equal(rule.hits, 1)
  })

  await t.test('stale', async (t) => {
    await proxy.clear()
    const rule = proxy.add({ fault: 'stale', times: Number.POSITIVE_INFINITY })
    const [{ json: old }, list] = [
      await call('GET', '/db/done'),
      await call('GET', '/db/_all_docs?limit=100')
    ]
    t.equal(rule.hits, 0, 'nothing is missed')
    await call('PUT', '/db/done', { ...(old as object), changed: true })
    await call('PUT', '/db/new', {})
    t.match(await call('GET', '/db/done'), { status: 200, json: old }, 'what it told before')
    t.match(await call('GET', '/db/new'), { status: 404, json: { error: 'not_found' } }, 'not there then')
    t.strictSame((await call('GET', '/db/_all_docs?limit=100')).json, list.json)
    const { rows } = (await call('GET', '/db/_all_docs')).json as { rows: { id: string }[] }
    const ids = rows.map(({ id }) => id)
    t.notOk(ids.includes('new'), 'nor in a list that was not asked for before')
    t.ok(ids.includes('accepted'), 'others are')
    t.equal(rule.hits, 4)
    await proxy.clear()
    t.match(await call('GET', '/db/done'), { status: 200, json: { changed: true } })
  })
})
