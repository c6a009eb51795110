import fc from 'fast-check'
import t from 'tap'
import { backUp, change, docs, remove } from './helpers/chain.js'
import { checkSame, setupCopySites } from './helpers/copies.js'

const RUNS = Number(process.env.COPY_RUNS ?? 3)

/** A change before a backup, the order of copies, and which backups a pruning there leaves in between. */
const history = fc.record({
  steps: fc.array(
    fc.record({
      ids: fc.array(fc.nat(30), { minLength: 1, maxLength: 4 }),
      removes: fc.boolean(),
      full: fc.nat(5)
    }),
    { minLength: 2, maxLength: 5 }
  ),
  order: fc.array(fc.nat(), { minLength: 3, maxLength: 8 }),
  pruneAt: fc.nat(7)
})

t.test(
  'whatever is copied, in whatever order, is the same there, whatever was pruned meanwhile',
  async (t) => {
    await fc.assert(
      fc.asyncProperty(history, async ({ steps, order, pruneAt }) => {
        await t.test(JSON.stringify({ steps: steps.length, order, pruneAt }), async (t) => {
          const sites = await setupCopySites(t, { count: 30 })
          const { host, from, copy, stored } = sites
          const ids: string[] = []
          // CouchDB refuses to delete what is not there.
          const gone = new Set(['doc_00030'])
          for (const { ids: changed, removes, full } of steps) {
            const names = [...new Set(changed)].map((i) => `doc_${String(i).padStart(5, '0')}`)
            const present = names.filter((name) => !gone.has(name))
            if (removes) await remove(from, from.names.components, ...present)
            else await change(from, from.names.components, docs(...names))
            for (const name of names) removes ? gone.add(name) : gone.delete(name)
            ids.push((await backUp(host, { full: full === 0 })).id)
          }
          const there = await sites.there()
          const copied = new Set<string>()
          for (const [i, number] of order.entries()) {
            const id = ids[number % ids.length]!
            t.equal((await copy(id)).already, copied.has(id))
            copied.add(id)
            if (i !== pruneAt) continue
            const { removed } = await there.app.dbBackups.prune({ keep: { last: 1 } })
            for (const { id } of removed) copied.delete(id)
          }
          t.strictSame(
            (await there.app.dbBackups.list()).ids,
            ids.filter((id) => copied.has(id))
          )
          t.strictSame(await stored.parts(), await stored.listed([...copied]))
          for (const id of copied) {
            await checkSame(t, host, there, id)
            t.match(await there.app.dbBackups.verify(id), { good: true })
            const { finished } = await there.app.dbBackups.restore({ id }, { exact: true })
            t.equal((await finished).databases.components?.failed, 0)
          }
        })
      }),
      { numRuns: RUNS }
    )
  }
)
