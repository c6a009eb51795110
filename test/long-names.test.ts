import t from 'tap'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { apiOf } from './helpers/api.js'
import { compareDatabases, setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'
import { isLong } from './helpers/settings.js'

const attachment = (size: number, type = 'image/png') => ({
  content_type: type,
  data: bytesOf(`${size}`, size).toString('base64')
})

interface LongDocument {
  _id: string
  _rev?: string
  _attachments: Record<string, object>
}

/**
 * Documents with texts too long for a URL or a header, both above and below what is held in memory; of those above, the
 * short version has every other one.
 */
const DOCUMENTS = [10, LARGE_DOCUMENT + 1]
  .flatMap((size): LongDocument[] => [
    { _id: `${size}${'k'.repeat(9000)}`, _attachments: { a: attachment(size) } },
    {
      _id: `${size}${'漢'.repeat(2000)}`,
      _attachments: { a: attachment(size), 'b c': attachment(3, 'text/plain') }
    },
    { _id: `${size}${'漢'.repeat(900)}`, _attachments: { ['漢'.repeat(501)]: attachment(size) } },
    { _id: `${size} name`, _attachments: { ['n'.repeat(9000)]: attachment(size) } },
    { _id: `${size} type`, _attachments: { a: attachment(size, `text/${'t'.repeat(9000)}`) } },
    { _id: `${size} revision`, _rev: `1-${'f'.repeat(9000)}`, _attachments: { a: attachment(size) } }
  ])
  .filter((_, i, { length }) => isLong || i < length / 2 || i % 2 === 0)

t.test('documents with texts that fit in no URL are backed up, sent and restored', async (t) => {
  const on = await setupDatabases(t)
  const { components } = on.names
  const db = on.couch.use(components)
  for (const { _rev = `1-${'a'.repeat(32)}`, ...doc } of DOCUMENTS)
    await db.bulk({ docs: [{ ...doc, _rev }], new_edits: false } as never)
  const before = await on.fetchAll(components)
  t.equal(before.size, DOCUMENTS.length)
  const api = apiOf(await buildHost(t, { on }))
  const id = await api.backup()
  const { rawPayload } = await api.call('GET', `/${id}`)
  for (const source of [id, rawPayload]) {
    await on.couch.db.destroy(components)
    const all = DOCUMENTS.length
    t.match(await api.restore(source), { status: 'success', databases: { components: { created: all } } })
    compareDatabases(t, before, await on.fetchAll(components), { rev: source === id })
    t.match((await api.restore(source)).databases, { components: { unchanged: all } })
  }
})
