import fc from 'fast-check'
import t, { type Test } from 'tap'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { agreeing, type Responder, setupReplicas } from './helpers/replicas-proxy.js'
import { cases, extent } from './helpers/settings.js'

const PAGE = 5
const COUNT = 23

/** What happens to the changes feed of `components` at a page. */
interface Feed {
  /** How far back a page begins, by its number. */
  rewinds: Map<number, number>
  /** A change before a page, by its number. */
  before: Map<number, () => Promise<void>>
}

/** Creates documents of two versions, a feed of small pages, and hosts that back them up. */
async function setup(t: Test) {
  const feed: Feed = { rewinds: new Map(), before: new Map() }
  let pages = 0
  let rows = 0
  const paged: Responder = async ({ line, forward }) => {
    if (!/_components\/_changes/.test(line)) return undefined
    const page = pages++
    await feed.before.get(page)?.()
    const path = line.slice('GET '.length).replace('limit=10000', `limit=${PAGE}`)
    const back = feed.rewinds.get(page) ?? Number.POSITIVE_INFINITY
    const answer = await forward(
      path.replace(/since=(\d+)[^&]*/, (_, since) => `since=${Math.min(since, back)}`)
    )
    rows += (answer.json as { results: unknown[] }).results.length
    const { last_seq: last } = answer.json as { last_seq: string }
    // a short page of the proxy must not be taken for the end of the feed
    const pending = Math.max(
      0,
      (raw.raw.store.get(raw.names.components)?.seq ?? 0) - Number.parseInt(last, 10)
    )
    return { status: answer.status, json: { ...(answer.json as object), pending } }
  }
  const setting = await setupReplicas(t, [agreeing, paged])
  const { raw } = setting
  const write = (ids: readonly string[], members: object) => {
    const { docs } = raw.raw.store.get(raw.names.components)!
    return raw.write(
      raw.names.components,
      ids.map((_id) => JSON.stringify({ _id, _rev: docs.get(_id)?.leaves[0]?.rev, ...members }))
    )
  }
  const host = await buildHost(t, { on: setting.on })
  const backup = async (full = true) => {
    pages = 0
    rows = 0
    const { id, finished } = await host.app.dbBackups.start({ full })
    await finished
    const { dbs } = await apiOf(host).get(id)
    return { rows, summary: dbs.athena_components!, docs: dbs.athena_components!.docs }
  }
  const reset = async () => {
    const database = raw.raw.store.get(raw.names.components)!
    database.docs.clear()
    database.seq = 0
    feed.rewinds.clear()
    feed.before.clear()
    await write(
      Array.from({ length: COUNT }, (_, i) => `doc ${i}`),
      { v: 1 }
    )
  }
  const current = () => {
    const all = Object.entries(raw.content(raw.names.components))
    return all.map(([_id, { rev, body }]) => ({ _id, _rev: rev, ...JSON.parse(`{${body}}`) }))
  }
  return { feed, write, backup, reset, current }
}

const byId = (docs: readonly { _id: string }[]) => [...docs].sort((a, b) => (a._id < b._id ? -1 : 1))

t.test(
  'a feed that goes on from far before sends documents twice, and a backup holds them once',
  async (t) => {
    const { feed, backup, reset, current } = await setup(t)
    await reset()
    t.equal((await backup()).rows, COUNT)
    feed.rewinds.set(3, 0)
    const rewound = await backup()
    t.equal(rewound.rows, 3 * PAGE + COUNT, 'everything before came again')
    t.equal(rewound.summary.doc_count, COUNT)
    t.strictSame(byId(rewound.docs), byId(current()))
  }
)

t.test('whatever the feed sends again, and whoever writes meanwhile, nothing is lost or old', async (t) => {
  const { feed, write, backup, reset, current } = await setup(t)
  const page = fc.integer({ min: 1, max: 8 })
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(page, fc.nat({ max: COUNT })), { maxLength: 4 }),
      fc.array(fc.tuple(page, fc.nat({ max: COUNT + 3 }), fc.boolean()), { maxLength: 6 }),
      async (rewinds, changes) => {
        await reset()
        feed.rewinds = new Map(rewinds)
        for (const [at, doc, deleted] of changes) {
          const earlier = feed.before.get(at)
          feed.before.set(at, async () => {
            await earlier?.()
            const exists = current().some(({ _id }) => _id === `doc ${doc}`)
            if (exists || !deleted) await write([`doc ${doc}`], deleted ? { _deleted: true } : { v: 2 })
          })
        }
        const { docs, summary } = await backup()
        t.strictSame(byId(docs), byId(current()))
        t.equal(summary.doc_count, docs.length)
        // The next one goes on from there.
        await write(['doc 0', 'doc new'], { v: 3 })
        const next = await backup(false)
        t.strictSame(byId(next.docs), byId(current()))
        t.equal(next.summary.doc_count, next.docs.length)
      }
    ),
    { numRuns: cases(extent(4, 8)) }
  )
})

t.test('an update sequence that is behind where the feed ended is no other database', async (t) => {
  let asked = 0
  const behind: Responder = async ({ line, forward }) => {
    if (!/^GET \/\w+_components$/.test(line) || asked++ === 0) return undefined
    const { status, json } = await forward()
    return { status, json: { ...(json as object), update_seq: '1-other', cluster: { q: 2, n: 3 } } }
  }
  const { raw, on } = await setupReplicas(t, [agreeing, behind])
  await raw.write(
    raw.names.components,
    Array.from({ length: COUNT }, (_, i) => JSON.stringify({ _id: `doc ${i}` }))
  )
  const again: unknown[] = []
  const host = await buildHost(t, {
    on,
    onEvent: (event) => void (event.type === 'retry' && again.push(event))
  })
  const api = apiOf(host)
  const id = await api.backup()
  t.equal((await api.get(id)).dbs.athena_components!.doc_count, COUNT)
  t.strictSame(again, [], 'nothing is read again')
  t.match(await api.restore(id), { status: 'success', databases: { components: { unchanged: COUNT } } })
  t.ok(asked > 2)
})
