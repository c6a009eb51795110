import t from 'tap'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { apiOf } from './helpers/api.js'
import { compareDatabases, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'

const large = bytesOf('large', LARGE_DOCUMENT + 1).toString('base64')
const small = bytesOf('small', 10).toString('base64')

/** Attachments that cannot be read at a URL of their own, or would end the head of the reply there. */
const ATTACHMENTS: Record<string, Record<string, { content_type: string; data: string }>> = {
  'type with line breaks': { a: { content_type: 'text/x\r\n\r\nof the head', data: large } },
  'type with an empty line, and others': {
    a: { content_type: 'image/png', data: small },
    b: { content_type: 'a/b\n\n', data: large },
    c: { content_type: 'image/png', data: small }
  },
  'no name': { '': { content_type: 'image/png', data: large }, b: { content_type: 'a/b', data: small } }
}

t.test('large attachments with odd names and content types come back as they were', async (t) => {
  const on = await setupDatabases(t)
  const db = on.couch.use(on.names.components)
  for (const [id, attachments] of Object.entries(ATTACHMENTS)) {
    await db.insert({ before: 1, _attachments: attachments } as never, id)
  }
  const before = await on.fetchAll(on.names.components)
  t.equal(before.size, 3)
  const api = apiOf(await buildHost(t, { on }))
  const id = await api.backup()
  const got = (await api.call('GET', `/${id}`)).rawPayload
  for (const source of [id, got]) {
    await on.couch.db.destroy(on.names.components)
    const tx = await api.restore(source)
    t.strictSame(tx.failures, [])
    t.match(tx, { status: 'success', databases: { components: { created: 3, failed: 0 } } })
    compareDatabases(t, before, await on.fetchAll(on.names.components), { rev: source === id })
  }
  t.match((await api.restore(id)).databases, { components: { unchanged: 3, created: 0 } })
})
