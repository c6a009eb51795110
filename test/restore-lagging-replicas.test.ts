import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import type { RawDatabases } from './helpers/raw-databases.js'
import {
  type Answer,
  agreeing,
  noAdministrator,
  type Responder,
  setupReplicas
} from './helpers/replicas-proxy.js'

const COUNT = 12
const large = { content_type: 'image/png', data: Buffer.alloc(5_000_000, 1).toString('base64') }
const backedUp = [
  ...Array.from({ length: COUNT }, (_, i) => ({ _id: `doc ${i}`, by: 'backup' })),
  { _id: 'large', by: 'backup', _attachments: { large } }
]
const ALL = COUNT + 1

/** Makes a backup, and builds a host that restores it through replicas that answer as the test says. */
async function setup(t: Test, replicas: readonly Responder[]) {
  const { raw, cluster, on } = await setupReplicas(t, replicas)
  const { components } = raw.names
  await raw.write(
    components,
    backedUp.map((doc) => JSON.stringify(doc))
  )
  const id = await apiOf(await buildHost(t, { on: raw })).backup()
  const host = await buildHost(t, { on })
  const sources = [id, backupOf(backedUp)]
  return { raw, requests: cluster.requests, components, id, host, through: apiOf(host), sources }
}

const leavesOf = (raw: RawDatabases, id: string) =>
  raw.raw.store
    .get(raw.names.components)!
    .docs.get(id)!
    .leaves.filter(({ deleted }) => !deleted)

/** Writes newer versions of all documents. */
async function change(
  { raw, names }: { raw: RawDatabases['raw']; names: RawDatabases['names'] },
  to: string
) {
  const docs = [...raw.store.get(names.components)!.docs.values()]
  const edits = docs.map(({ id, leaves }) => ({ _id: id, _rev: leaves[0]!.rev, by: to }))
  const body = JSON.stringify({ docs: edits })
  const headers = { 'content-type': 'application/json' }
  await fetch(`${raw.url}/${names.components}/_bulk_docs`, { method: 'POST', body, headers })
}

function expectBackup(t: Test, raw: RawDatabases) {
  const content = raw.content(raw.names.components)
  t.strictSame(Object.keys(content).sort(), backedUp.map(({ _id }) => _id).sort())
  for (const { _id } of backedUp) {
    t.match(content[_id]!.body, /"by":"backup"/, `${_id} is the backup's`)
    t.equal(leavesOf(raw, _id).length, 1, `${_id} is in no conflict`)
  }
}

interface Page {
  rows: { id: string; value: { rev: string } }[]
}

/** Answers a scan from a replica that `changed` derives from the database. */
const scan =
  (changed: (rows: Page['rows']) => Page['rows']): Responder =>
  async ({ line, forward }) => {
    if (!/_components\/_all_docs/.test(line)) return undefined
    const { status, json } = await forward()
    return { status, json: { ...(json as Page), rows: changed((json as Page).rows) } }
  }

const showsNothing = scan(() => [])

/** Answers `GET /database` from a replica that has no documents yet. */
const tellsOfNothing: Responder = async ({ line, forward }) => {
  if (!/^GET \/\w+_components$/.test(line)) return undefined
  const { status, json } = await forward()
  const cluster = { q: 2, n: 3 }
  return { status, json: { ...(json as object), doc_count: 0, doc_del_count: 0, cluster } }
}

for (const [name, replicas] of Object.entries({
  'a replica that does not show a document': [noAdministrator, showsNothing],
  'a replica that does not show it, though all agreed': [agreeing, showsNothing],
  'a replica that tells of no documents at all': [noAdministrator, showsNothing, tellsOfNothing]
}))
  t.test(`${name} does not have the restore write beside it`, async (t) => {
    const { raw, id, through, sources } = await setup(t, replicas)
    for (const source of sources) {
      const first = await through.restore(source)
      t.match(first.databases?.components, { created: 0, changed: 0, unchanged: ALL }, 'they are found')
      await change(raw, 'console')
      const tx = await through.restore(source)
      t.match(tx.databases?.components, { created: 0, changed: ALL, unchanged: 0, failed: 0 })
      expectBackup(t, raw)
    }
    t.match(
      (await through.restore(id)).databases?.components,
      { unchanged: ALL },
      'and nothing the next time'
    )
  })

t.test(
  'a document that no replica has is created with its own revision, unless it was deleted',
  async (t) => {
    const { raw, id, through } = await setup(t, [noAdministrator])
    const before = raw.content(raw.names.components)
    raw.raw.store.get(raw.names.components)!.docs.clear()
    t.match((await through.restore(id)).databases?.components, { created: ALL, failed: 0 })
    t.strictSame(raw.content(raw.names.components), before)
    const deleted = { _id: 'doc 1', _rev: before['doc 1']!.rev, _deleted: true }
    await raw.write(raw.names.components, [JSON.stringify(deleted)])
    t.match((await through.restore(id)).databases?.components, { created: 1, unchanged: ALL - 1, failed: 0 })
    expectBackup(t, raw)
  }
)

t.test(
  'a row of a replica that lags is not believed where the replicas were not seen to agree',
  async (t) => {
    let old: Page['rows'] = []
    const stale = scan((rows) => (old.length > 0 ? old : rows))
    const setting = await setup(t, [noAdministrator, stale])
    const { raw, components, id, through } = setting
    const { rows } = (await (await fetch(`${raw.url}/${components}/_all_docs`)).json()) as Page
    await change(raw, 'console')
    old = rows
    t.match((await through.restore(id)).databases?.components, { changed: ALL, unchanged: 0, failed: 0 })
    expectBackup(t, raw)
  }
)

t.test('a row of a replica that lags by a moment is looked at again, as the feed tells', async (t) => {
  let before: () => Promise<unknown> = async () => {}
  const stale: Responder = async ({ line, forward }) => {
    if (!/_components\/_all_docs/.test(line)) return undefined
    const answer = await forward()
    await before()
    return answer
  }
  const { raw, components, id, through } = await setup(t, [agreeing, stale])
  before = async () => {
    await change(raw, 'console')
    const _rev = leavesOf(raw, 'doc 1')[0]!.rev
    await raw.write(components, [JSON.stringify({ _id: 'doc 1', _rev, _deleted: true })])
  }
  const tx = await through.restore(id)
  t.match(tx.databases?.components, { created: 1, changed: ALL - 1, unchanged: 0, failed: 0 })
  expectBackup(t, raw)
})

t.test('documents that are skipped stay as they are, whatever the feed tells of them', async (t) => {
  let before = async () => {}
  const meanwhile: Responder = async ({ line }) => {
    if (/_components\/_all_docs/.test(line)) await before()
    return undefined
  }
  const { raw, id, through } = await setup(t, [agreeing, meanwhile])
  before = () => change(raw, 'console')
  const tx = await through.restore(id, '?skip_components=["doc 1"]')
  t.match(tx.databases?.components, { skipped: 1, failed: 0 })
  t.match(raw.content(raw.names.components)['doc 1']!.body, /console/)
})

/** Answers a write that one replica takes and the others refuse, since they have a version of another client. */
function takenByOne(raw: () => RawDatabases, digest: string): { replica: Responder; struck: Set<string> } {
  const struck = new Set<string>()
  const replica: Responder = async ({ line, body, forward }) => {
    if (!/^POST .*_components\/_bulk_docs/.test(line)) return undefined
    const { docs } = JSON.parse(body) as { docs: { _id: string; _deleted?: boolean }[] }
    const fresh = docs.filter(({ _id, _deleted }) => !_deleted && !struck.has(_id))
    const { json } = await forward()
    for (const { _id } of fresh) {
      struck.add(_id)
      const generation = Number.parseInt(leavesOf(raw(), _id)[0]!.rev, 10)
      const other = { _id, _rev: `${generation}-${digest.repeat(32)}`, by: 'console' }
      await raw().write(raw().names.components, [JSON.stringify(other)], false)
    }
    if (fresh.length === 0) return { status: 201, json }
    const results = (json as { ok?: boolean; id: string }[]).map((row) =>
      row.ok && fresh.some(({ _id }) => _id === row.id) ? { ...row, accepted: true } : row
    )
    return { status: 202, json: results }
  }
  return { replica, struck }
}

for (const digest of ['0', 'f'])
  t.test(
    `a write that one replica took is no success beside a version that ${digest === 'f' ? 'wins' : 'loses'}`,
    async (t) => {
      let raw!: RawDatabases
      const taken = takenByOne(() => raw, digest)
      const setting = await setup(t, [agreeing, (request) => (raw ? taken.replica(request) : undefined)])
      const { through, sources, components } = setting
      for (const source of sources) {
        setting.raw.raw.store.get(components)!.docs.clear()
        raw = setting.raw
        taken.struck.clear()
        const tx = await through.restore(source)
        t.ok(taken.struck.size >= COUNT)
        t.match(tx.databases?.components, { created: ALL, failed: 0 })
        expectBackup(t, raw)
      }
      // the restore may not remove the version of the other client, but must not leave its own beside it
      await change(raw, 'before')
      taken.struck.clear()
      t.match((await through.restore(setting.id)).databases?.components, { changed: ALL, failed: 0 })
      const content = raw.content(components)
      for (const { _id } of backedUp) {
        t.match(content[_id]!.body, /"by":"backup"/)
        t.strictSame(
          leavesOf(raw, _id)
            .slice(1)
            .filter(({ body }) => !/console/.test(body.toString())),
          [],
          `nothing of this restore is beside ${_id}`
        )
      }
    }
  )

t.test('a version beside a created document goes, also where the feed does not tell of it', async (t) => {
  let raw!: RawDatabases
  const taken = takenByOne(() => raw, '0')
  const tellsWinners: Responder = async ({ line, forward }) => {
    if (!/_components\/_changes.*style=all_docs/.test(line)) return undefined
    const { status, json } = await forward()
    const { results, ...rest } = json as { results: { changes: unknown[] }[] }
    return {
      status,
      json: { ...rest, results: results.map((row) => ({ ...row, changes: row.changes.slice(0, 1) })) }
    }
  }
  const bulk: Responder = (request) => (raw ? taken.replica(request) : undefined)
  const setting = await setup(t, [agreeing, tellsWinners, bulk])
  for (const source of setting.sources) {
    setting.raw.raw.store.get(setting.components)!.docs.clear()
    raw = setting.raw
    taken.struck.clear()
    const tx = await setting.through.restore(source)
    t.ok(taken.struck.size >= COUNT)
    t.match(tx.databases?.components, { created: ALL, failed: 0 })
    expectBackup(t, raw)
  }
})

t.test('a write that few replicas took while the others are down counts once it can be read', async (t) => {
  const few: Responder = async ({ line, forward }) => {
    if (!/^POST .*_components\/_bulk_docs/.test(line)) return undefined
    const { json } = await forward()
    return { status: 202, json: (json as object[]).map((row) => ({ ...row, accepted: true })) }
  }
  const { raw, components, through, sources } = await setup(t, [agreeing, few])
  for (const source of sources) {
    raw.raw.store.get(components)!.docs.clear()
    t.match((await through.restore(source)).databases?.components, { created: ALL, failed: 0 })
    expectBackup(t, raw)
  }
})

t.test('a deletion that one replica took is made again', async (t) => {
  let taken = 0
  const few: Responder = ({ line, body }): Answer | undefined => {
    if (!/^POST .*_components\/_bulk_docs/.test(line) || !/_deleted/.test(body) || taken++ > 0)
      return undefined
    const { docs } = JSON.parse(body) as { docs: { _id: string }[] }
    return {
      status: 202,
      json: docs.map(({ _id: id }) => ({ ok: true, id, rev: `2-${'0'.repeat(32)}`, accepted: true }))
    }
  }
  const { raw, components, id, host } = await setup(t, [agreeing, few])
  await raw.write(components, ['{"_id":"extra"}'])
  const { finished } = await host.app.dbBackups.restore({ id }, { exact: true })
  t.match((await finished).databases.components, { deleted: 1, failed: 0 })
  t.ok(taken > 1)
  expectBackup(t, raw)
})

t.test(
  'a document that a lagging feed does not show is looked up, and written again only when it is missing',
  async (t) => {
    let lose = false
    const silent: Responder = async ({ line, forward }) => {
      if (!/_components\/_changes.*style=all_docs/.test(line)) return undefined
      if (lose) setting.raw.raw.store.get(setting.components)!.docs.delete('doc 3')
      return { status: 200, json: { ...((await forward()).json as object), results: [] } }
    }
    const setting = await setup(t, [agreeing, silent])
    const { raw, components, through, sources, requests } = setting
    for (const source of sources)
      for (const lost of [false, true]) {
        raw.raw.store.get(components)!.docs.clear()
        requests.length = 0
        lose = lost
        t.match((await through.restore(source)).databases?.components, { created: ALL, failed: 0 })
        const written = requests.filter((line) => /POST .*_components\/_bulk_docs/.test(line))
        // the large document has a write of its own
        t.equal(written.length, lost ? 3 : 2)
        expectBackup(t, raw)
      }
  }
)
