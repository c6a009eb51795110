import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { compareDatabases, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { type RawDatabases, setupRawDatabases } from './helpers/raw-databases.js'
import { bytesOf, HOSTILE_STRINGS, hostileDocuments, LOSSY_MEMBERS, load } from './helpers/seed.js'

const REV = (n: number) => `${n}-${bytesOf(`rev ${n}`, 16).toString('hex')}`
const attachment = (contentType: string, data: Buffer) =>
  JSON.stringify({ content_type: contentType, data: data.toString('base64') })

/** Members that a parser in JavaScript changes, or that CouchDB itself refuses. */
const MEMBERS = [
  ...LOSSY_MEMBERS,
  '"max":9007199254740993,"min":-9007199254740993',
  '"float":1.0,"floats":[1.0,1.50,-0.0,0e0,1e400,-1E+400,1e-400]',
  '"lone":["\\ud83d","\\ude00x","a\\uD83D\\uD83D"],"\\ud83d":1,"\\u006bey\\/":2',
  '"twice":1,"twice":2',
  '"10":1,"9":2,"a":3,"":4',
  `"strings":${JSON.stringify(HOSTILE_STRINGS)}`,
  `"deep":${'[{"d":'.repeat(50)}1.0${'}]'.repeat(50)}`
].join(',')

const IDS = [
  'plain',
  'a b',
  'a/b/c',
  'a%2Fb+c',
  'ü漢😀',
  '"quoted"',
  'back\\slash',
  '{}',
  '0',
  '~',
  'constructor',
  '03_ibp_db_backup_x',
  'backup_chunk_1_system_1',
  '_design/one',
  '_design/a/b ü'
]

const NAMES = ['a b.txt', 'a/b.txt', 'ü漢😀', '"quoted"', 'back\\slash', '%2F', 'data', '__proto__', '.', '~']
const TYPES = ['text/plain; charset=utf-8', 'x/y; q="a b"', 'no type at all', 'é/ü', 'application/gzip', '']

function documents(): string[] {
  let n = 0
  const withRev = (id: string, members: string) =>
    `{"_id":${id},"_rev":"${REV(++n)}"${members && ','}${members}}`
  const all = IDS.map((id) => withRev(JSON.stringify(id), MEMBERS))
  all.push(
    withRev('"spelled\\u0041\\/"', MEMBERS),
    withRev('"lone\\ud83d"', '"of":1.0'),
    withRev('"empty"', ''),
    withRev('"typed"', '"\\u0074ype":"fabric-peer"'),
    withRev('"seven"', `"before":1.0,"text":"${'7 MB \\u0041 ü '.repeat(450_000)}","after":-0`)
  )
  const odd = NAMES.map((name, i) => {
    const type = TYPES[i % TYPES.length]!
    return `${JSON.stringify(name)}:${attachment(type, bytesOf(name, i * 1000))}`
  })
  all.push(withRev('"_design/attached"', `"n":1.0,"_attachments":{${odd.join(',')}}`))
  const many = Array.from(
    { length: 300 },
    (_, i) => `"file ${i}":${attachment('text/plain', bytesOf(`${i}`, i))}`
  )
  all.push(withRev('"many"', `${LOSSY_MEMBERS.join(',')},"_attachments":{${many.join(',')}}`))
  const large = NAMES.slice(0, 6).map((name, i) => {
    return `${JSON.stringify(name)}:${attachment(TYPES[i]!, bytesOf(name, i * 500_000 + 1))}`
  })
  all.push(
    withRev(
      '"large"',
      `${LOSSY_MEMBERS.filter((member) => !member.startsWith('"spaces"')).join(',')},"_attachments":{${large.join(',')}}`
    )
  )
  return all
}

async function seeded(t: Test): Promise<{ on: RawDatabases; docs: string[] }> {
  const on = await setupRawDatabases(t)
  const docs = documents()
  await on.write(on.names.components, docs, false)
  await on.write(on.names.sessions, docs.slice(0, 3), false)
  await on.write(on.names.system, docs.slice(3, 9), false)
  return { on, docs }
}

const contents = (on: RawDatabases, names = on.names, options = {}) => ({
  components: on.content(names.components, options),
  sessions: on.content(names.sessions, options),
  system: on.content(names.system, options)
})

/** Compares megabytes, of which `t.same` would print everything when they differ. */
function sameContents(
  t: Test,
  found: ReturnType<typeof contents>,
  expected: ReturnType<typeof contents>
): void {
  for (const key of ['components', 'sessions', 'system'] as const) {
    t.strictSame(Object.keys(found[key]).sort(), Object.keys(expected[key]).sort(), `${key}: the same ids`)
    for (const [id, document] of Object.entries(expected[key])) {
      const other = found[key][id]
      if (JSON.stringify(other) === JSON.stringify(document)) t.pass(`${key}/${id.slice(0, 40)}`)
      else if (document.body.length < 10_000) t.strictSame(other, document, `${key}/${id}`)
      else t.fail(`${key}/${id} is not what it was`)
    }
  }
}

t.test('what is backed up comes back byte for byte', async (t) => {
  const { on, docs } = await seeded(t)
  const before = contents(on)
  t.equal(Object.keys(before.components).length, docs.length)
  const host = await buildHost(t, { on, databases: on.names })
  const api = apiOf(host)
  const id = await api.backup()
  const got = await api.call('GET', `/${id}`)
  t.equal(got.statusCode, 200)

  await t.test('in what GET sends', async (t) => {
    for (const [name, documents] of Object.entries(contents(on))) {
      for (const document of Object.keys(documents)) {
        const { rawId, body, attachments } = documents[document]!
        if (attachments.length > 0) continue
        const { rev } = documents[document]!
        const bytes = `{"_id":${rawId},"_rev":"${rev}"${body && ','}${body}}`
        t.ok(got.rawPayload.includes(bytes), `${name}/${document.slice(0, 40)}`)
      }
    }
  })

  await t.test('by id, to databases that were emptied', async (t) => {
    for (const name of [on.names.components, on.names.sessions, on.names.system]) {
      on.raw.store.delete(name)
      await fetch(`${on.url}/${name}`, { method: 'PUT' })
    }
    const tx = await api.restore(id)
    t.strictSame(tx.failures, [])
    t.match(tx, { status: 'success', databases: { components: { created: docs.length, failed: 0 } } })
    sameContents(t, contents(on), before)
  })

  await t.test('by upload, to databases of other names', async (t) => {
    const names = on.other()
    await on.create(names)
    const other = apiOf(await buildHost(t, { on, databases: names }))
    const tx = await other.restore(got.rawPayload)
    t.strictSame(tx.failures, [])
    t.match(tx, { status: 'success', databases: { components: { created: docs.length, failed: 0 } } })
    const rev = false
    sameContents(t, contents(on, names, { rev }), contents(on, on.names, { rev }))
    const again = await other.restore(got.rawPayload)
    t.match(again.databases, { components: { unchanged: docs.length, created: 0, changed: 0 } })
  })

  await t.test('by id and by upload, over documents that were changed or deleted', async (t) => {
    const { store } = on.raw
    const change = async () => {
      const edits = [...store.get(on.names.components)!.docs.values()].map(({ rawId, leaves }, i) => {
        return `{"_id":${rawId},"_rev":"${leaves[0]!.rev}",${i % 3 === 0 ? '"_deleted":true' : '"float":1'}}`
      })
      await on.write(on.names.components, edits)
    }
    const expected = contents(on, on.names, { rev: false })
    for (const source of [id, got.rawPayload]) {
      await change()
      t.notSame(contents(on, on.names, { rev: false }), expected)
      const tx = await api.restore(source)
      const { total, created, changed, failed } = tx.databases!.components!
      t.equal(tx.status, 'success')
      t.strictSame([total, created + changed, failed], [docs.length, docs.length, 0])
      t.ok(created > 0 && changed > 0)
      sameContents(t, contents(on, on.names, { rev: false }), expected)
    }
  })
})

t.test('the database sends the same bytes again after a restore', async (t) => {
  const on = await setupDatabases(t)
  const { couch, names, url } = on
  const attached = NAMES.slice(0, 6).map((name, i) => [
    name,
    { content_type: TYPES[i % 3], data: bytesOf(name, i * 1000).toString('base64') }
  ])
  await load(couch.use(names.components), [
    ...hostileDocuments(),
    { _id: 'deep', deep: JSON.parse(`${'[{"d":'.repeat(50)}1${'}]'.repeat(50)}`) },
    { _id: 'megabytes', text: 'ü" '.repeat(1_000_000) },
    { _id: '_design/attached', language: 'javascript', _attachments: Object.fromEntries(attached) },
    { _id: '_design/a/b ü', language: 'javascript' }
  ])
  const { origin, username, password } = new URL(url)
  const headers: Record<string, string> = { 'content-type': 'application/json' }
  if (username) headers.authorization = `Basic ${btoa(`${username}:${password}`)}`
  // the embedded database parses documents
  const members = LOSSY_MEMBERS.filter((member) => on.real && !member.includes('ud83d'))
  const docs = [
    '"_id":"lossy"',
    `"_id":"lossy attached","_attachments":{"a":${attachment('image/png', bytesOf('a', 10))}}`
  ]
  const body = `{"docs":[${docs.map((doc) => `{${[doc, ...members].join(',')}}`)}]}`
  const written = await fetch(`${origin}/${names.components}/_bulk_docs`, { method: 'POST', headers, body })
  t.equal(written.status, 201)
  /** Returns rows as the database sends them. The embedded one reorders members of attachments when it stores them. */
  const sent = async () => {
    const query = 'include_docs=true&attachments=true'
    const reply = await fetch(`${origin}/${names.components}/_all_docs?${query}`, { headers })
    return (await reply.text()).split('\n')
  }
  const before = on.real ? await sent() : []
  const snapshot = await on.fetchAll(names.components)
  if (on.real)
    t.match(before.join(), /"big":9007199254740993,"huge":123456789012345678901234567890,"float":1\.0/)

  const api = apiOf(await buildHost(t, { on, databases: { ...names, backups: names.sessions } }))
  const id = await api.backup()
  const got = await api.call('GET', `/${id}`)
  for (const source of [id, got.rawPayload]) {
    await couch.db.destroy(names.components)
    t.match(await api.restore(source), { status: 'success' })
    // the database gives uploaded documents revisions of its own
    const rev = source === id
    compareDatabases(t, snapshot, await on.fetchAll(names.components), { rev })
    const shown = (line: string) => (rev ? line : line.replace(/"_?rev":"[^"]*"/g, ''))
    const after = on.real ? await sent() : []
    t.equal(after.length, before.length)
    for (const [i, line] of before.entries()) t.ok(shown(after[i]!) === shown(line), line.slice(0, 60))
  }
})

t.test('documents come back however deep they nest', async (t) => {
  const on = await setupRawDatabases(t)
  const { components } = on.names
  const deep = (depth: number) => `${'[{"d":'.repeat(depth / 2)}1.0${'}]'.repeat(depth / 2)}`
  await on.write(
    components,
    [5000, 20_000].map((depth) => `{"_id":"deep ${depth}","_rev":"${REV(1)}","d":${deep(depth)}}`),
    false
  )
  const before = on.content(components)
  const api = apiOf(await buildHost(t, { on, databases: on.names }))
  const id = await api.backup()
  await on.couch.db.destroy(components)
  t.match(await api.restore(id), { status: 'success', databases: { components: { created: 2 } } })
  t.strictSame(on.content(components), before)
})
