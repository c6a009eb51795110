import t from 'tap'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'

/** Above the size from which documents are spooled in pieces, and attachments read by their own URL; in base64. */
const LARGE = 'QUFB'.repeat(1_500_000)

/** Invalid attachments in an upload, by what is wrong with them. */
const WRONG: [attachments: string, problem: RegExp][] = [
  ['{"a":1}', /"a" of "odd" is not an object/],
  ['{"a":{}}', /"a" of "odd" has no data/],
  ['{"a":{"content_type":"a/b"}}', /"a" of "odd" has no data/],
  ['{"a":{"follows":true,"length":3}}', /"a" of "odd" says that its data follows/],
  ['{"a":{"data":1}}', /"a" of "odd" has a "data" that is not a string/],
  ['{"a":{"data":"YQ==","content_type":1}}', /"a" of "odd" has a "content_type" that is not a string/],
  ['{"a":{"data":"YQ==","content_type":{"toString":1}}}', /a "content_type" that is not a string/],
  ['{"a":{"data":"YQ=="},"b":{}}', /"b" of "odd" has no data/]
]
const WRONG_LARGE: [attachments: string, problem: RegExp][] = [
  [
    `{"a":{"content_type":{"toString":1},"data":"${LARGE}"}}`,
    /content_type of attachment "a" must be a string/
  ],
  [`{"\\ud800":{"data":"${LARGE}"}}`, /the name of attachment "\\ud800" is not Unicode/]
]

t.test('attachments that no database could store are refused before anything is written', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  for (const [attachments, problem] of [...WRONG, ...WRONG_LARGE]) {
    const documents = `[{"_id":"first"},{"_id":"odd","_attachments":${attachments}}]`
    const reply = await api.call('PUT', '', `{"dbs":{"components":{"docs":${documents}}}}`)
    t.equal(reply.statusCode, 400, attachments.slice(0, 60))
    t.match(reply.json().message, problem)
    t.match(reply.json().message, /^dbs\.components\.docs\[1\]: /)
  }
  const noUnicode = `{"dbs":{"components":{"docs":[{"_id":"\\ud800","x":"${LARGE}"}]}}}`
  t.match((await api.call('PUT', '', noUnicode)).json().message, /is not Unicode/)
  t.equal((await host.on.fetchAll(host.on.names.components)).size, 0)
})

t.test('a document whose stub came without data fails alone', async (t) => {
  const host = await buildHost(t)
  const docs = [
    { _id: 'a' },
    { _id: 'b', _attachments: { x: { stub: true, content_type: 'a/b' } } },
    { _id: 'c' }
  ]
  const transaction = await apiOf(host).restore({ dbs: { components: { docs } } })
  t.match(transaction, { status: 'error', databases: { components: { created: 2, failed: 1 } } })
  t.match(transaction.failures, [{ id: 'b' }])
})

t.test('large attachments are backed up whatever the length of their names and content types', async (t) => {
  const host = await buildHost(t)
  const api = apiOf(host)
  const odd = {
    'long type': { a: { content_type: `a/${'b'.repeat(20_000)}`, data: LARGE } },
    'long name': { ['n'.repeat(9000)]: { content_type: 'a/b', data: LARGE } }
  }
  const docs = Object.entries(odd).map(([_id, _attachments]) => ({ _id, _attachments }))
  t.equal((await api.restore({ dbs: { components: { docs } } })).status, 'success')
  const backup = await api.get(await api.backup())
  for (const { _id, _attachments = {} } of backup.dbs.athena_components!.docs) {
    const [name, { content_type, data }] = Object.entries(_attachments)[0]!
    const [expected, { content_type: type }] = Object.entries(odd[_id as keyof typeof odd])[0]!
    t.equal(name, expected)
    t.equal(content_type, type)
    t.ok(data === LARGE, `${_id}: the data`)
  }
  t.equal(backup.dbs.athena_components!.docs.length, 2)
})
