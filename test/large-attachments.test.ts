import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import t from 'tap'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { repeatedBytes } from './helpers/seed.js'
import { isLong } from './helpers/settings.js'

const MiB = 1024 * 1024

/** More than is put together in memory, as all above `LARGE_DOCUMENT`. The embedded database is slow with them. */
const LARGEST = (process.env.COUCHDB_URL ? 40 : 6) * MiB
const HALF = LARGE_DOCUMENT / 2

/** Lengths of the attachments of each document. */
const DOCUMENTS: Record<string, number[]> = {
  ...(isLong && { largest: [LARGEST], below: [LARGE_DOCUMENT - 1] }),
  'two/of half': [HALF, HALF + 1],
  '_design/with one': [LARGE_DOCUMENT + 2, 0, 7],
  exactly: [LARGE_DOCUMENT],
  above: [LARGE_DOCUMENT + 1],
  small: [10]
}
const TYPES = ['image/png', 'application/x; q="a b"', 'application/octet-stream']

const names = (lengths: number[]) => lengths.map((length, i) => ({ name: `ü part/${i} "a"`, length, i }))
const bytes = (id: string, i: number, length: number) => repeatedBytes(`${id} ${i}`, length)
const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex')

async function seed({ couch }: TestDatabases, database: string): Promise<void> {
  const db = couch.use(database)
  for (const [id, lengths] of Object.entries(DOCUMENTS)) {
    await db.insert({ n: 1, deep: [[id]] } as never, id)
    for (const { name, length, i } of names(lengths)) {
      const data = bytes(id, i, length)
      const { _rev: rev } = await db.get(id)
      await db.attachment.insert(id, name, data, TYPES[i]!, { rev })
    }
  }
}

/** Reads every document without the data of attachments, and the digest of each attachment. */
async function fingerprints({ couch }: TestDatabases, database: string, ids?: string[]) {
  const db = couch.use(database)
  const found: Record<string, object> = {}
  for (const id of ids ?? (await db.list()).rows.map(({ id }) => id)) {
    const { _rev, _attachments, n, deep } = (await db.get(id)) as unknown as {
      _rev: string
      n: number
      deep: string[][]
      _attachments: Record<string, { content_type: string; length: number }>
    }
    const attachments: Record<string, unknown[]> = {}
    for (const [name, { content_type, length }] of Object.entries(_attachments)) {
      const data = (await db.attachment.get(id, name)) as Buffer
      attachments[name] = [content_type, length, sha256(data)]
    }
    found[id] = { _rev, n, deep, attachments }
  }
  return found
}

t.test('attachments of any size come back as they were', async (t) => {
  const on = await setupDatabases(t)
  const { couch } = on
  const { components } = on.names
  await seed(on, components)
  const before = await fingerprints(on, components)
  for (const [id, lengths] of Object.entries(DOCUMENTS)) {
    const { attachments } = before[id] as { attachments: object }
    const expected = names(lengths).map(({ name, length, i }) => {
      return [name, [TYPES[i], length, sha256(bytes(id, i, length))]]
    })
    t.same(attachments, Object.fromEntries(expected))
  }
  const host = await buildHost(t, { on, databases: { ...on.names, backups: on.names.system } })
  await host.app.listen({ port: 0, host: '127.0.0.1' })
  const api = apiOf(host)
  const id = await api.backup()

  const url = `${host.app.listeningOrigin}/api/v1/backups`
  const headers = { ...host.as('manager'), 'content-type': 'application/json' }
  const got = await buffer((await fetch(`${url}/${id}`, { headers })).body as never)

  await couch.db.destroy(components)
  const tx = await api.restore(id)
  t.match(tx, { status: 'success', databases: { components: { created: Object.keys(DOCUMENTS).length } } })
  t.strictSame(await fingerprints(on, components), before, 'restored by id')

  await couch.db.destroy(components)
  const body = Readable.toWeb(Readable.from([got])) as never
  const reply = await fetch(url, { method: 'PUT', headers, body, duplex: 'half' } as RequestInit)
  t.equal(reply.status, 202)
  const { url: tx2 } = (await reply.json()) as { url: string }
  t.match(await host.waitForRestore(tx2), { status: 'success' })
  const content = (found: typeof before) =>
    Object.fromEntries(Object.entries(found).map(([id, document]) => [id, { ...document, _rev: '' }]))
  t.strictSame(content(await fingerprints(on, components)), content(before), 'restored from what GET sent')

  const db = couch.use(components)
  const { _rev: rev } = await db.get('two/of half')
  await db.insert({ _rev: rev, n: 2 } as never, 'two/of half')
  await db.destroy('above', (await db.get('above'))._rev)
  const again = await api.restore(id)
  t.equal(again.status, 'success')
  const { changed, created, failed, total } = again.databases!.components!
  t.strictSame([changed, created, failed, total], [1, 1, 0, Object.keys(DOCUMENTS).length])
  const touched = ['above', 'two/of half']
  for (const [id, document] of Object.entries(await fingerprints(on, components, touched))) {
    t.strictSame(
      { ...document, _rev: '' },
      { ...before[id], _rev: '' },
      `${id} is restored over what was done to it`
    )
  }
})
