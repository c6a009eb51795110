import t from 'tap'
import { secondOfCreation, startRawCouch } from './helpers/raw-couch.js'
import { HOSTILE_STRINGS, LOSSY_MEMBERS } from './helpers/seed.js'

async function setup(t: { teardown(close: () => Promise<void>): void }) {
  const couch = await startRawCouch()
  t.teardown(() => couch.close())
  const call = async (
    method: string,
    path: string,
    body?: string | Uint8Array,
    type = 'application/json'
  ) => {
    const headers: Record<string, string> = body === undefined ? {} : { 'content-type': type }
    const response = await fetch(couch.url + path, { method, headers, body: body ?? null })
    const text = await response.text()
    const json = () => JSON.parse(text)
    return { status: response.status, headers: response.headers, text, json }
  }
  await call('PUT', '/db')
  return { couch, call }
}

const REV = `3-${'a'.repeat(32)}`

t.test('keeps the bytes of documents', async (t) => {
  const { couch, call } = await setup(t)
  const body = `${LOSSY_MEMBERS.join(',')},"hostile":${JSON.stringify(HOSTILE_STRINGS)}`
  const sent = [
    `{"_id":"one","_rev":"${REV}",${body}}`,
    ` { "_rev" : "${REV}" , ${body} , "_id" : "tw\\u006f" } `
  ]
  const written = await call('POST', '/db/_bulk_docs', `{"new_edits":false,"docs":[${sent.join(',\n')}]}`)
  t.equal(written.status, 201)
  t.same(written.json(), [])
  t.equal(couch.document('db', 'one')?.toString(), sent[0])

  const two = `{"_id":"tw\\u006f","_rev":"${REV}",${body}}`
  t.equal((await call('GET', '/db/one')).text, sent[0])
  t.equal((await call('GET', '/db/two')).text, two)
  t.ok((await call('GET', '/db/_changes?include_docs=true')).text.includes(`"doc":${sent[0]}`))
  t.ok((await call('GET', '/db/_all_docs?include_docs=true')).text.includes(`"doc":${two}`))
  const got = await call('POST', '/db/_bulk_get', '{"docs":[{"id":"two"}]}')
  t.ok(got.text.includes(`{"ok":${two}}`))

  const edited = await call('PUT', '/db/three', `{${body}}`)
  t.equal(edited.status, 201)
  t.equal((await call('GET', '/db/three')).text, `{"_id":"three","_rev":"${edited.json().rev}",${body}}`)
})

t.test('revisions', async (t) => {
  const { call } = await setup(t)
  const first = await call('POST', '/db/_bulk_docs', '{"docs":[{"_id":"a","v":1},{"_id":"b"}]}')
  const rev = first.json()[0].rev
  t.match(rev, /^1-[0-9a-f]{32}$/)
  const again = await call('POST', '/db/_bulk_docs', '{"docs":[{"_id":"a","v":2},{"_id":"c"}]}')
  t.match(again.json(), [
    { id: 'a', error: 'conflict' },
    { ok: true, id: 'c' }
  ])
  const second = await call('PUT', '/db/a', `{"_rev":"${rev}","v":2}`)
  t.match(second.json().rev, /^2-/)
  t.equal((await call('PUT', '/db/a', `{"_rev":"${rev}","v":3}`)).status, 409)

  const conflict = `{"_id":"a","_rev":"2-${'f'.repeat(32)}","v":9}`
  await call('POST', '/db/_bulk_docs', `{"new_edits":false,"docs":[${conflict},${conflict}]}`)
  const read = (await call('GET', '/db/a?conflicts=true&revs=true')).json()
  t.match(read, { v: 9, _conflicts: [second.json().rev], _revisions: { start: 2, ids: ['f'.repeat(32)] } })
  const known = [`2-${'f'.repeat(32)}`, rev, second.json().rev, '9-x']
  const diff = await call('POST', '/db/_revs_diff', JSON.stringify({ a: known, b: [], z: ['1-q'] }))
  t.same(diff.json(), { a: { missing: ['9-x'] }, z: { missing: ['1-q'] } })

  t.equal((await call('HEAD', '/db/b')).status, 200)
  t.equal((await call('DELETE', '/db/b')).status, 409)
  t.equal((await call('DELETE', `/db/b?rev=${first.json()[1].rev}`)).status, 200)
  t.match(await call('GET', '/db/b'), { status: 404, text: /"deleted"/ })
  t.equal(
    (await call('PUT', '/db/b', '{"v":1}')).status,
    201,
    'a deleted document is written without revision'
  )
  t.match((await call('POST', '/db/_bulk_docs', '{"docs":[{"_id":"x","_foo":1},{"_id":"y"}]}')).json(), {
    error: 'doc_validation'
  })
  t.equal((await call('GET', '/db/y')).status, 404)
})

t.test('changes and all documents', async (t) => {
  const { call } = await setup(t)
  for (const id of ['a', 'b', 'c', 'd/e', 'é']) await call('PUT', `/db/${encodeURIComponent(id)}`, '{}')
  const { rev } = (await call('GET', '/db/b')).json()
  t.equal(rev, undefined)
  await call('DELETE', `/db/b?rev=${(await call('GET', '/db/b')).json()._rev}`)

  const page = (await call('GET', '/db/_changes?limit=3&seq_interval=2&include_docs=true')).json()
  t.match(page, { results: [{ id: 'a', seq: null }, { id: 'c' }, { id: 'd/e' }], pending: 2 })
  const rest = (await call('GET', `/db/_changes?since=${page.last_seq}`)).json()
  t.match(rest, { results: [{ id: 'é' }, { id: 'b', deleted: true }], pending: 0 })
  const end = (await call('GET', `/db/_changes?since=${rest.last_seq}`)).json()
  t.same(end, { results: [], last_seq: rest.last_seq, pending: 0 })

  const ids = async (query: string) =>
    (await call('GET', `/db/_all_docs?${query}`)).json().rows.map((row: { id: string }) => row.id)
  t.same(await ids(''), ['a', 'c', 'd/e', 'é'])
  t.same(await ids('startkey="c"&limit=2'), ['c', 'd/e'])
  t.same(await ids('start_key="c"&skip=1&limit=1'), ['d/e'])
  t.same(await ids('startkey="b"&endkey="d/e"'), ['c', 'd/e'])
  t.same(await ids('startkey="b"&endkey="d/e"&inclusive_end=false'), ['c'])
  t.match((await call('POST', '/db/_all_docs', '{"keys":["c","nope","b"]}')).json().rows, [
    { id: 'c', value: { rev: /^1-/ } },
    { key: 'nope', error: 'not_found' },
    { id: 'b', value: { deleted: true } }
  ])
  t.match((await call('GET', '/db')).json(), { db_name: 'db', doc_count: 4, doc_del_count: 1 })
})

t.test('local documents', async (t) => {
  const { call } = await setup(t)
  const put = (body: string) => call('PUT', '/db/_local/lease', body)
  t.match((await put('{"n":1.0}')).json(), { rev: '0-1' })
  t.equal((await put('{}')).status, 409)
  t.equal((await put('{"_rev":"0-7"}')).status, 409)
  t.equal((await call('GET', '/db/_local/lease')).text, '{"_id":"_local/lease","_rev":"0-1","n":1.0}')
  t.match((await put('{"_rev":"0-1"}')).json(), { rev: '0-2' })
  t.equal((await call('DELETE', '/db/_local/lease?rev=0-1')).status, 409)
  t.equal((await call('DELETE', '/db/_local/lease?rev=0-2')).status, 200)
  t.equal((await call('GET', '/db/_local/lease')).status, 404)
})

t.test('attachments', async (t) => {
  const { call, couch } = await setup(t)
  const data = Buffer.from('a\r\n--c\u0000')
  const rev = (await call('PUT', '/db/doc', '{"n":1.0}')).json().rev
  t.equal((await call('PUT', '/db/doc/x%2Fy', data, 'text/plain')).status, 409)
  const put = await call('PUT', `/db/doc/x%2Fy?rev=${rev}`, data, 'text/plain')
  t.equal(put.status, 201)
  const read = await call('GET', '/db/doc/x%2Fy')
  t.equal(read.text, data.toString())
  t.equal(read.headers.get('content-type'), 'text/plain')
  t.ok((await call('GET', '/db/doc')).text.includes('"n":1.0,"_attachments"'))
  t.match((await call('GET', '/db/doc')).json()._attachments, { 'x/y': { stub: true, length: data.length } })
  const inline = (await call('GET', '/db/doc?attachments=true')).json()
  t.equal(inline._attachments['x/y'].data, data.toString('base64'))
  t.equal((await call('PUT', '/db/doc', JSON.stringify(inline))).status, 201, 'is taken back')

  const multipart = (document: string, ...parts: (string | Buffer)[]) =>
    Buffer.concat([
      Buffer.from(`--b\r\nContent-Type: application/json\r\n\r\n${document}`),
      ...parts.map((part) => Buffer.from(part as string)),
      Buffer.from('\r\n--b--')
    ])
  const entry = (length: number) => `{"follows":true,"content_type":"image/png","length":${length}}`
  const document = `{"_id":"m","_rev":"${REV}","n":1.0,"_attachments":{"p":${entry(data.length)},"q":${entry(4)}}}`
  const body = multipart(
    document,
    '\r\n--b\r\nContent-Disposition: attachment; filename="q"\r\n\r\n',
    'of q',
    '\r\n--b\r\n\r\n',
    data
  )
  const type = 'multipart/related; boundary="b"'
  t.equal((await call('PUT', '/db/m?new_edits=false', body, type)).status, 201)
  const leaf = couch.store.get('db')?.docs.get('m')?.leaves[0]
  t.equal(leaf?.rev, REV)
  t.equal(leaf?.body.toString(), '"n":1.0')
  t.same(leaf?.attachments.get('p'), { contentType: 'image/png', revpos: 3, data })
  t.equal(leaf?.attachments.get('q')?.data.toString(), 'of q')
  const missing = await call('PUT', '/db/o?new_edits=false', multipart(document.replace('"m"', '"o"')), type)
  t.match(missing, { status: 412, text: /missing_stub/ })
})

t.test('purges single leaves', async (t) => {
  const { call } = await setup(t)
  const leaf = (hash: string, v: number) => `{"_id":"a","_rev":"2-${hash}","v":${v}}`
  await call('POST', '/db/_bulk_docs', `{"new_edits":false,"docs":[${leaf('aa', 1)},${leaf('ff', 2)}]}`)
  const before = (await call('GET', '/db/_changes')).json()
  const purge = async (body: object) => (await call('POST', '/db/_purge', JSON.stringify(body))).json()
  const purges = async () => Number.parseInt((await call('GET', '/db')).json().purge_seq, 10)

  t.match(await purge({ a: ['2-ff'] }), { purged: { a: ['2-ff'] } })
  const changes = async (since: string) =>
    (await call('GET', `/db/_changes?include_docs=true&since=${since}`)).json()
  const after = await changes(before.last_seq)
  t.match(after.results, [{ id: 'a', changes: [{ rev: '2-aa' }], doc: { v: 1 } }], 'the next leaf wins')
  t.equal(await purges(), 1)
  t.match(await purge({ a: ['2-aa'], nobody: ['1-x'] }), { purged: { a: ['2-aa'], nobody: [] } })
  t.equal(await purges(), 3, 'ids that no document has count as well')
  t.match(await changes(after.last_seq), { results: [], last_seq: after.last_seq }, 'no row tells')
  t.same((await changes('0')).results, [])
  t.match((await call('GET', '/db')).json(), { doc_count: 0, doc_del_count: 0 })
})

t.test('answers sequences of an earlier database of the same name from the start', async (t) => {
  const { couch, call } = await setup(t)
  for (const id of ['a', 'b']) await call('PUT', `/db/${id}`, '{}')
  const { last_seq } = (await call('GET', '/db/_changes')).json()
  const created = couch.store.get('db')?.created
  await call('DELETE', '/db')
  await call('PUT', '/db')
  t.not(couch.store.get('db')?.created, created)
  const empty = (await call('GET', `/db/_changes?since=${last_seq}`)).json()
  t.match(empty, { results: [], last_seq: /^0-/, pending: 0 })
  for (const id of ['c', 'd', 'e']) await call('PUT', `/db/${id}`, '{}')
  const anew = (await call('GET', `/db/_changes?since=${last_seq}&limit=2`)).json()
  t.match(anew, { results: [{ id: 'c' }, { id: 'd' }], pending: 1 })
  t.match((await call('GET', '/db/_changes?since=2')).json().results, [{ id: 'e' }])
})

t.test('tells the second of creation as CouchDB does, where it is asked to', async (t) => {
  const couch = await startRawCouch({ created: secondOfCreation })
  t.teardown(() => couch.close())
  const before = Math.floor(Date.now() / 1000)
  await fetch(`${couch.url}/db`, { method: 'PUT' })
  const reply = await fetch(`${couch.url}/db`)
  const { instance_start_time } = (await reply.json()) as { instance_start_time: string }
  t.ok(Number(instance_start_time) >= before && Number(instance_start_time) <= Date.now() / 1000)
})
