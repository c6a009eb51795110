import fc from 'fast-check'
import t, { type Test } from 'tap'
import { type ClusterHost, startClusterHosts } from './helpers/cluster-hosts.js'
import { cases, extent } from './helpers/settings.js'
import { type ClusterDatabases, setupCluster, type Timing } from './helpers/simulated-cluster.js'

/** What happens to one document between a backup and its restore. */
type Change = 'none' | 'edit' | 'delete' | 'delete and make again'

interface Plan extends Required<Pick<Timing, 'seed' | 'delay' | 'merge'>> {
  changes: Change[]
  /** Nodes of the host that backs up, of the host that restores, and of each writer. */
  backup: number
  restore: number
  writers: number[]
  /** A node that is down while documents change, and back when the restore begins. */
  absent: number | null
}

const node = fc.nat({ max: 2 })
const plan: fc.Arbitrary<Plan> = fc.record({
  seed: fc.integer(),
  delay: fc.integer({ min: 1, max: 10 }),
  merge: fc.integer({ min: 1, max: 300 }),
  changes: fc.array(fc.constantFrom<Change>('none', 'edit', 'delete', 'delete and make again'), {
    minLength: 10,
    maxLength: 30
  }),
  backup: node,
  restore: node,
  writers: fc.array(node, { minLength: 3, maxLength: 3 }),
  absent: fc.option(node)
})

const idOf = (i: number) => `doc ${i}`

async function change({ on, names }: ClusterDatabases, node: number, id: string, what: Change) {
  if (what === 'none') return
  const db = on(node).couch.use<{ by: string }>(names.components)
  const { _rev } = await db.get(id)
  if (what === 'edit') await db.insert({ _id: id, _rev, by: 'console' })
  else await db.destroy(id, _rev)
  if (what === 'delete and make again') await db.insert({ _id: id, by: 'console' } as never)
}

async function setup(t: Test, plan: Plan) {
  const databases = await setupCluster(t, plan)
  const { couch, names } = databases.on(plan.backup)
  const docs = plan.changes.map((_, i) => ({ _id: idOf(i), by: 'backup' }))
  await couch.use(names.components).bulk({ docs })
  await databases.cluster.merge()
  const { hosts, close } = await startClusterHosts(t, databases, [plan.backup, plan.restore])
  const end = async () => {
    await close()
    await databases.cluster.close()
  }
  return { databases, backup: hosts[0]!, restore: hosts[1]!, end }
}

/** Changes documents, and restores at once while the replicas differ. */
async function changeAndRestore(databases: ClusterDatabases, host: ClusterHost, id: string, plan: Plan) {
  const { cluster } = databases
  const { absent, writers, changes } = plan
  if (absent !== null) await cluster.down(absent)
  const able = writers.map((node) => (node === absent ? (node + 1) % 3 : node))
  await Promise.all(changes.map((what, i) => change(databases, able[i % 3]!, idOf(i), what)))
  if (absent !== null) await cluster.up(absent)
  const transaction = await host.api.restore(id)
  if (transaction.status !== 'success') throw new Error(`restore: ${JSON.stringify(transaction)}`)
  await databases.cluster.merge()
}

/** Returns the documents that, once the replicas have merged, differ from the backup or have a conflict. */
function wrong({ cluster, names }: ClusterDatabases, { changes }: Plan): string[] {
  return changes.flatMap((what, i) => {
    const leaves = cluster.leaves(names.components, idOf(i))
    const bodies = leaves.map(({ body }) => body)
    return bodies.length === 1 && bodies[0] === '"by":"backup"' ? [] : [`${what}: ${bodies.join(' beside ')}`]
  })
}

t.test('a backup finds its chunks, and what is restored is all there, while replicas lag', async (t) => {
  await fc.assert(
    fc.asyncProperty(plan, async (plan) => {
      const { databases, backup, restore, end } = await setup(t, plan)
      try {
        const id = await backup.api.backup()
        await changeAndRestore(databases, restore, id, plan)
        const found = wrong(databases, plan)
        if (found.length > 0) throw new Error(found.join('; '))
      } finally {
        await end()
      }
    }),
    { numRuns: cases(extent(4, 8)), endOnFailure: true }
  )
})
