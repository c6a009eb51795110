import fc from 'fast-check'
import t, { type Test } from 'tap'
import { cases } from './helpers/settings.js'
import { startSimulatedCluster, type Timing } from './helpers/simulated-cluster.js'

async function setup(t: Test, timing: Timing = {}) {
  const cluster = await startSimulatedCluster(timing)
  t.teardown(() => cluster.close())
  const at =
    (node: number) => async (method: string, path: string, body?: object | string, type?: string) => {
      const response = await fetch(cluster.urls[node] + path, {
        method,
        headers: { accept: 'application/json', 'content-type': type ?? 'application/json' },
        body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
        signal: AbortSignal.timeout(5000)
      })
      const text = await response.text()
      return { status: response.status, json: text ? JSON.parse(text) : undefined }
    }
  const nodes = cluster.urls.map((_, node) => at(node))
  await nodes[0]!('PUT', '/db')
  return { cluster, nodes, one: nodes[0]!, two: nodes[1]!, three: nodes[2]! }
}

type Setup = Awaited<ReturnType<typeof setup>>

/** Writes only to the replicas of these nodes. */
async function writeOn({ cluster, nodes }: Setup, on: number[], id: string, doc: object) {
  const others = nodes.map((_, node) => node).filter((node) => !on.includes(node))
  for (const node of others) await cluster.down(node)
  const written = await nodes[on[0]!]!('PUT', `/db/${id}?w=${on.length}`, doc)
  for (const node of others) await cluster.up(node)
  return written
}

const ids = ({ rows }: { rows: { id: string }[] }) => rows.map(({ id }) => id)

t.test('a write that a majority accepts is 201, one that fewer accept 202', async (t) => {
  const { cluster, one } = await setup(t)
  t.match(await one('PUT', '/db/a', {}), { status: 201, json: { ok: true, id: 'a', rev: /^1-/ } })
  await cluster.down(2)
  t.equal((await one('PUT', '/db/b', {})).status, 201)
  t.equal((await one('PUT', '/db/e?w=3', {})).status, 202, 'the caller asks for more than there are')
  await cluster.down(1)
  t.equal((await one('PUT', '/db/c', {})).status, 202)
  t.match(await one('POST', '/db/_bulk_docs', { docs: [{ _id: 'd' }] }), {
    status: 202,
    json: [{ ok: true, id: 'd', accepted: true }]
  })
  t.equal((await one('PUT', '/db/f?w=1', {})).status, 201)
  const replicated = { new_edits: false, docs: [{ _id: 'g', _rev: '1-a' }] }
  t.same(await one('POST', '/db/_bulk_docs', replicated), { status: 201, json: [] }, 'CouchDB does not tell')
})

t.test('an edit is refused only when no replica accepts it', async (t) => {
  const on = await setup(t)
  const { one, two, cluster } = on
  const { rev } = (await one('PUT', '/db/a', { v: 1 })).json
  await writeOn(on, [0, 1], 'a', { _rev: rev, v: 2 })
  const late = await two('PUT', '/db/a', { _rev: rev, v: 3 })
  t.equal(late.status, 202, 'the replica that was down takes it')
  t.equal((await two('PUT', '/db/a', { _rev: rev, v: 4 })).status, 409)
  t.match((await two('POST', '/db/_bulk_docs', { docs: [{ _id: 'a', _rev: rev }] })).json, [
    { id: 'a', error: 'conflict' }
  ])
  t.equal(cluster.leaves('db', 'a').length, 2, 'what was accepted lives on')
  await cluster.merge()
  const { json } = await one('GET', '/db/a?conflicts=true')
  t.equal(json._conflicts.length, 1)
})

t.test('two writers of one revision may both be accepted', async (t) => {
  const outcomes = new Set<string>()
  await fc.assert(
    fc.asyncProperty(fc.integer(), async (seed) => {
      const { cluster, one, two } = await setup(t, { seed, delay: 2 })
      const { rev } = (await one('PUT', '/db/a?w=3', {})).json
      const writers = [one('PUT', '/db/a', { _rev: rev, v: 1 }), two('PUT', '/db/a', { _rev: rev, v: 2 })]
      const statuses = (await Promise.all(writers)).map(({ status }) => status).sort()
      await cluster.merge()
      outcomes.add(statuses.join())
      const accepted = statuses.filter((status) => status < 300).length
      if (cluster.leaves('db', 'a').length !== accepted) throw new Error(`a leaf for each: ${statuses}`)
      await cluster.close()
    }),
    { numRuns: cases(20) }
  )
  t.same([...outcomes].sort(), ['201,202', '201,409'])
})

t.test('replicas merge on demand, or by themselves', async (t) => {
  const on = await setup(t)
  await writeOn(on, [0], 'a', { v: 1 })
  await writeOn(on, [1], 'a', { v: 2 })
  await writeOn(on, [2], 'b', {})
  await on.cluster.merge()
  await on.cluster.merge()
  for (const { store } of on.cluster.replicas) {
    t.equal(store.get('db')?.docs.get('a')?.leaves.length, 2)
    t.ok(store.get('db')?.docs.has('b'))
  }
  const alone = await setup(t, { merge: 5 })
  await writeOn(alone, [0], 'a', {})
  while (!alone.cluster.replicas[2]?.store.get('db')?.docs.has('a')) await new Promise(setImmediate)
  t.pass('in a while')
})

t.test('a document is read from a majority, which repairs what it finds', async (t) => {
  const on = await setup(t)
  const { one, cluster } = on
  await writeOn(on, [2], 'a', { v: 1 })
  t.equal((await one('GET', '/db/a?r=1')).status, 404, 'one replica is enough for this caller')
  t.equal((await one('GET', '/db/a')).status, 404, 'a majority that agrees')
  t.equal((await one('GET', '/db/a?r=3')).json.v, 1, 'all are asked')
  t.ok(cluster.replicas[0]?.store.get('db')?.docs.has('a'), 'repaired')
  t.equal((await one('GET', '/db/a?r=1')).json.v, 1)

  await writeOn(on, [0], 'b', { v: 1 })
  const head = await fetch(`${cluster.urls[1]}/db/b?r=2`, { method: 'HEAD' })
  t.equal(head.status, 200, 'what one has wins over two that have nothing, once it was heard')
  await writeOn(on, [0], 'c', { v: 1 })
  await writeOn(on, [1], 'c', { v: 2 })
  const { json } = await one('GET', '/db/c')
  t.match(json, { _rev: cluster.leaves('db', 'c')[0]?.rev }, 'of three that differ, the winner')
})

t.test('all leaves are the union of a majority', async (t) => {
  const on = await setup(t)
  const { one } = on
  t.equal((await one('GET', '/db/a?open_revs=all')).status, 404)
  const first = (await writeOn(on, [0], 'a', { v: 1 })).json.rev
  const second = (await writeOn(on, [1], 'a', { v: 2 })).json.rev
  const opened = (await one('GET', '/db/a?open_revs=all')).json
  t.same(opened.map(({ ok }: { ok: { _rev: string } }) => ok._rev).sort(), [first, second].sort())
  const got = await one('POST', '/db/_bulk_get', {
    docs: [{ id: 'a' }, { id: 'a', rev: first }, { id: 'none' }]
  })
  const [both, , missing] = got.json.results
  t.equal(both.docs.length, 2)
  await writeOn(on, [0], 'b', { v: 1 })
  await writeOn(on, [1], 'b', { v: 2 })
  const alone = await one('POST', '/db/_bulk_get', { docs: [{ id: 'b' }] })
  t.equal(alone.json.results[0].docs.length, 2)
  t.equal(missing.docs[0].error.error, 'not_found')
  t.equal((await one('GET', `/db/a?rev=${second}`)).json.v, 2)
})

t.test('lists, the feed, counts and revisions are told by one replica, which may lag', async (t) => {
  const on = await setup(t, { delay: 3, seed: 1 })
  const { one } = on
  const written = await writeOn(on, [2], 'a', {})
  const answers = { all: new Set(), changes: new Set(), count: new Set(), diff: new Set() }
  for (let round = 0; round < 30; round++) {
    answers.all.add(ids((await one('GET', '/db/_all_docs')).json).length)
    answers.changes.add((await one('GET', '/db/_changes')).json.results.length)
    answers.count.add((await one('GET', '/db')).json.doc_count)
    const diff = await one('POST', '/db/_revs_diff', { a: [written.json.rev] })
    answers.diff.add(Object.keys(diff.json).length)
  }
  for (const [what, seen] of Object.entries(answers)) t.equal(seen.size, 2, what)
  t.match((await one('GET', '/db')).json, { cluster: { q: 2, n: 3, w: 2, r: 2 }, update_seq: /-replica\d$/ })
  const keys = await one('POST', '/db/_all_docs?r=3', { keys: ['a'] })
  t.equal(keys.status, 200)
})

t.test(
  'a sequence goes on at its replica, and rewinds at another: documents twice, never lost',
  async (t) => {
    const on = await setup(t)
    const { one, two, cluster } = on
    const changed = (json: { results: { id: string }[] }) => json.results.map(({ id }) => id)
    await one('PUT', '/db/a', {})
    await cluster.merge()
    await writeOn(on, [1], 'b', {})
    const first = (await one('GET', '/db/_changes')).json
    t.same(changed(first), ['a'], 'the first replica has not seen the second document')
    await one('PUT', '/db/c', {})
    const next = (await one('GET', `/db/_changes?since=${first.last_seq}`)).json
    t.same(changed(next), ['c'])
    await cluster.down(0)
    const rewound = (await two('GET', `/db/_changes?since=${next.last_seq}`)).json
    t.same(changed(rewound), ['b', 'c'])
    await cluster.up(0)
    t.same(changed((await two('GET', `/db/_changes?since=${next.last_seq}`)).json), [])
    await writeOn(on, [1], 'd', {})
    const last = (await one('GET', `/db/_changes?since=${rewound.last_seq}`)).json
    t.match([changed(last), last.last_seq], [['d'], /-replica1$/], 'the replica that the sequence is of')
    for (const _ of [1, 2]) await cluster.merge()
    const all = (await two('GET', `/db/_changes?since=${last.last_seq}`)).json
    await cluster.down(1)
    t.same(
      changed((await one('GET', `/db/_changes?since=${all.last_seq}`)).json),
      [],
      'no further than it must'
    )
  }
)

t.test('a node that is down refuses, and has what it had when it is back', async (t) => {
  const { cluster, one, three } = await setup(t)
  await cluster.down(2)
  await t.rejects(three('GET', '/db'))
  await one('PUT', '/db/a', {})
  await cluster.up(2)
  t.notOk(cluster.replicas[2]?.store.get('db')?.docs.has('a'))
  await cluster.merge()
  t.ok(cluster.replicas[2]?.store.get('db')?.docs.has('a'))
})

t.test('a multipart request is stored and never answered while a node is down', async (t) => {
  const { cluster, one } = await setup(t)
  const stub = { follows: true, content_type: 'text/plain', length: 2 }
  const doc = JSON.stringify({ _attachments: { file: stub } })
  const parts = ['--x', 'content-type: application/json', '', doc, '--x', '', 'hi', '--x--', '']
  const put = (id: string) => one('PUT', `/db/${id}`, parts.join('\r\n'), 'multipart/related; boundary="x"')
  t.equal((await put('a')).status, 201)
  await cluster.down(2)
  const answered = await Promise.race([
    put('b'),
    new Promise((resolve) => setTimeout(resolve, 100, 'silence'))
  ])
  t.equal(answered, 'silence')
  t.match((await one('GET', '/db/b')).json, { _attachments: { file: { length: 2 } } })
  const inline = { _attachments: { file: { content_type: 'text/plain', data: 'aGk=' } } }
  t.equal((await one('PUT', '/db/c', inline)).status, 201)
  const rev = (await one('PUT', '/db/d', {})).json.rev
  t.equal((await one('PUT', `/db/d/file?rev=${rev}`, 'hi', 'text/plain')).status, 201)
})

t.test('requests fail as they are told to', async (t) => {
  const { cluster, one } = await setup(t)
  cluster.strike({ path: /_all_docs/, answer: { status: 500, error: 'internal_server_error' } })
  t.equal((await one('GET', '/db/_all_docs')).status, 500)
  t.equal((await one('GET', '/db/_all_docs')).status, 200, 'once')
  const storm = cluster.strike({
    method: 'PUT',
    path: /./,
    times: 9,
    answer: { status: 409, error: 'conflict' }
  })
  for (const _ of [1, 2, 3]) t.equal((await one('PUT', '/db/a', {})).status, 409)
  storm()
  t.equal((await one('PUT', '/db/a', {})).status, 201)
  cluster.strike({ path: /./, answer: { status: 412, error: 'nodedown', reason: 'progress not possible' } })
  t.match(await one('GET', '/db/a'), { status: 412, json: { error: 'nodedown' } })
  cluster.strike({ method: 'PUT', path: /b/, effect: true, answer: 'never' })
  const answered = await Promise.race([
    one('PUT', '/db/b', {}),
    new Promise((resolve) => setTimeout(resolve, 100, 'silence'))
  ])
  t.equal(answered, 'silence')
  t.equal((await one('GET', '/db/b')).status, 200, 'it took effect')
})

t.test('a frozen replica answers from long ago', async (t) => {
  const { cluster, one } = await setup(t)
  const thaw = cluster.freeze(0)
  await one('PUT', '/db/a', {})
  t.same(ids((await one('GET', '/db/_all_docs')).json), [])
  t.equal((await one('GET', '/db/a')).status, 200, 'a majority knows better')
  thaw()
  t.same(ids((await one('GET', '/db/_all_docs')).json), ['a'])
})

t.test('a document is deleted, and a database', async (t) => {
  const { one, two } = await setup(t)
  const { rev } = (await one('PUT', '/db/a', {})).json
  t.equal((await two('DELETE', '/db/none')).status, 404)
  t.equal((await two('DELETE', '/db/a')).status, 409)
  t.equal((await two('DELETE', `/db/a?rev=${rev}`)).status, 200)
  t.equal((await one('GET', '/db/a')).status, 404)
  t.equal((await one('PUT', '/db')).status, 412)
  t.equal((await two('DELETE', '/db')).status, 200)
  t.equal((await one('GET', '/db/a')).status, 404)
  t.equal((await one('PUT', '/db')).status, 201)
})
