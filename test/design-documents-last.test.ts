import t from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { setupRawDatabases } from './helpers/raw-databases.js'

const DESIGNS = ['_design/a', '_design/z']
const OTHERS = ['A', 'a', 'z', 'ü']
/** Ids of so many documents that they take several writes. */
const MANY = Array.from({ length: 600 }, (_, i) => `n${i}`)

/** Design documents come before, between and after the others. One has an attachment that is sent as a stream. */
function documents() {
  const large = Buffer.alloc(5 * 1024 * 1024, 1).toString('base64')
  const attachments = { a: { content_type: 'application/octet-stream', data: large } }
  const of = (id: string) => ({
    _id: id,
    ...(id === 'z' || id === '_design/z' ? { _attachments: attachments } : {})
  })
  return ['_design/a', ...OTHERS, '_design/z', ...MANY].map(of)
}

t.test('a restore writes design documents when all others are written', async (t) => {
  const on = await setupRawDatabases(t)
  const host = await buildHost(t, { on, databases: on.names })
  const api = apiOf(host)
  const empty = async () => {
    await fetch(`${on.url}/${on.names.components}`, { method: 'DELETE' })
    await fetch(`${on.url}/${on.names.components}`, { method: 'PUT' })
  }
  const sequences = (ids: readonly string[]) =>
    ids.map((id) => on.raw.store.get(on.names.components)!.docs.get(id)!.seq)
  const restored = (what: string) => {
    const last = Math.max(...sequences([...OTHERS, ...MANY]))
    const first = Math.min(...sequences(DESIGNS))
    t.ok(last < first, `${what}: the last of the others is write ${last}, the first design document ${first}`)
  }
  t.equal((await api.restore(backupOf(documents()))).status, 'success')
  restored('an upload')
  const id = await api.backup()
  await empty()
  t.equal((await api.restore(id)).status, 'success')
  restored('a stored backup')
})
