import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import { backUp, documents, setupChain } from './helpers/chain.js'
import { buildHost } from './helpers/host.js'
import { encryptionOf, keyOf } from './helpers/sealed.js'

async function setup(t: Parameters<typeof setupChain>[0]) {
  const on = await setupChain(t)
  await on.write(on.names.components, documents(60))
  await on.write(on.names.system, documents(3))
  const build = (encryption = encryptionOf('k1')) => buildHost(t, { on, databases: on.names, encryption })
  const headers = on.couch.use<StoredHeader>(on.names.backups)
  return { on, build, headers }
}

t.test('a backup that was sealed anew is whole, and the base of the next', async (t) => {
  const { on, build } = await setup(t)
  const plain = await buildHost(t, { on, databases: on.names })
  const ids = [(await backUp(plain)).id]
  const first = await build()
  ids.push((await backUp(first)).id)
  await on.write(on.names.components, [{ _id: 'one more' }])
  ids.push((await backUp(first)).id)
  for (const [before, now] of [
    ['k1', 'k2'],
    ['k2', 'k3']
  ] as const) {
    const host = await build(encryptionOf(before, now))
    t.match(await host.app.dbBackups.rekey(), { rekeyed: ids })
    for (const id of ids) {
      const { good, problems } = await host.app.dbBackups.verify(id)
      t.strictSame({ good, problems }, { good: true, problems: [] }, `sealed with ${now}`)
    }
    const next = await backUp(host)
    for (const { full_reason } of Object.values(next.dbs)) t.equal(full_reason, undefined)
    ids.push(next.id)
  }
})

t.test('a backup that is sealed anew while it is verified is not called damaged', async (t) => {
  const { build } = await setup(t)
  let waits = false
  let asked = false
  const slow = {
    current: 'k1',
    async key(id: string) {
      while (waits) {
        asked = true
        await delay(10)
      }
      return keyOf(id)
    }
  }
  const host = await build(slow)
  const { id } = await backUp(host)
  const other = await build(encryptionOf('k1', 'k2'))
  await other.app.dbBackups.summary(id)
  waits = true
  const verified = host.app.dbBackups.verify(id)
  while (!asked) await delay(10)
  t.match(await other.app.dbBackups.rekey(), { rekeyed: [id] })
  waits = false
  t.match(await verified, { good: true, problems: [] })
  t.match(await other.app.dbBackups.summary(id), { damaged: undefined, verified: { good: true } })
})

t.test('a header that somebody has changed is reported and marked, though it cannot be opened', async (t) => {
  const { build, headers } = await setup(t)
  const { app } = await build()
  const { id } = await backUp({ app } as Awaited<ReturnType<typeof build>>)
  const CHANGES: Record<string, (header: StoredHeader) => void> = {
    'a digest of a chunk': ({ storage }) => {
      storage.databases.components!.chunks[0]!.sha256 = 'x'
    },
    'a chunk left out': ({ storage }) => void storage.databases.components!.chunks.pop(),
    'a count': (header) => void header.doc_count++,
    'no MAC': ({ storage }) => void delete storage.seal!.mac,
    'no seal': ({ storage }) => {
      delete storage.seal
      storage.layout = 3
    }
  }
  const whole = await headers.get(id)
  for (const [what, change] of Object.entries(CHANGES)) {
    const header = structuredClone({ ...whole, _rev: (await headers.get(id))._rev })
    change(header)
    await headers.insert(header)
    const report = await app.dbBackups.verify(id, { depth: 'structure' })
    t.match(report, { good: false, problems: [{ part: 'header', id, backups: [id] }] }, what)
    t.match((await headers.get(id)).damaged, { databases: { components: { count: 1 } } }, what)
  }
  await headers.insert({ ...whole, _rev: (await headers.get(id))._rev })
  t.match(await app.dbBackups.verify(id), { good: true })
})

t.test('an entry that is wrong in one header is no damage of the backups that share the chunk', async (t) => {
  const { on, headers } = await setup(t)
  const host = await buildHost(t, { on, databases: on.names })
  const first = await backUp(host)
  await on.write(on.names.components, [{ _id: 'one more' }])
  const second = await backUp(host)
  const shared = (await headers.get(first.id)).storage.databases.components!.chunks[0]!
  const whole = await headers.get(second.id)
  const WRONG = { rev: `1-${'0'.repeat(32)}`, sha256: '0'.repeat(64), stored: 1, raw: 1, docs: 1 }
  for (const [member, value] of Object.entries(WRONG)) {
    const header = structuredClone({ ...whole, _rev: (await headers.get(second.id))._rev })
    const entry = header.storage.databases.components!.chunks.find(({ id }) => id === shared.id)!
    Object.assign(entry, { [member]: value })
    await headers.insert(header)
    t.match(await host.app.dbBackups.verify(second.id), { good: false }, member)
    t.equal((await headers.get(first.id)).damaged, undefined, member)
  }
})
