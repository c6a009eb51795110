import { setTimeout as delay } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { type ClusterHosts, startClusterHosts } from './helpers/cluster-hosts.js'
import { LEASE } from './helpers/database.js'
import { load, seedDocuments } from './helpers/seed.js'
import { cases, extent } from './helpers/settings.js'
import { type ClusterDatabases, setupCluster } from './helpers/simulated-cluster.js'

const REFUSALS = ['already_in_progress', 'backup_in_progress', 'restore_in_progress']
const timeouts = { control: 2000, idle: 2000 }

/** What each host starts, and when. */
const start = fc.record({
  operation: fc.constantFrom('backup' as const, 'backup' as const, 'restore' as const),
  after: fc.nat({ max: 3 })
})
const cluster = {
  seed: fc.integer(),
  delay: fc.integer({ min: 1, max: 8 }),
  merge: fc.integer({ min: 1, max: 40 }),
  nodes: fc.array(fc.nat({ max: 2 }), { minLength: 2, maxLength: 4 })
}
const round = fc.array(start, { minLength: 4, maxLength: 4 })

type Start = { operation: 'backup' | 'restore'; after: number }
type Setup = { databases: ClusterDatabases; running: ClusterHosts; backup: string }

async function setup(
  t: Test,
  { seed, delay, merge, nodes }: { seed: number; delay: number; merge: number; nodes: number[] }
): Promise<Setup> {
  const databases = await setupCluster(t, { seed, delay, merge })
  const { couch, names } = databases.on(0)
  for (const [name, count] of Object.entries({ components: 15, sessions: 3, system: 2 })) {
    const documents = seedDocuments({ count, prefix: name, attachmentEvery: 5 })
    await load(couch.use(names[name as 'components']), documents)
  }
  await databases.cluster.merge()
  const running = await startClusterHosts(t, databases, nodes, { timeouts })
  const backup = await running.hosts[0]!.api.backup()
  await running.allEnded()
  return { databases, running, backup }
}

async function tearDown({ databases, running }: Setup): Promise<void> {
  await running.close()
  await databases.cluster.close()
}

/** Lets hosts start operations at about the same time, and throws when they break a promise. */
async function play({ databases, running, backup }: Setup, starts: Start[], down?: number): Promise<void> {
  const { cluster, names } = databases
  const able = running.hosts.filter(({ node }) => node !== down)
  const replies = await Promise.all(
    able.map(async ({ api }, i) => {
      const { operation, after } = starts[i]!
      await delay(after)
      return operation === 'backup' ? api.call('POST') : api.call('PUT', `/${backup}`, {})
    })
  )
  await running.allEnded()
  await cluster.merge()
  const told = replies.map((reply) => `${reply.statusCode} ${reply.json().message}`)
  const refused = replies.filter(({ statusCode }) => statusCode !== 202)
  const leaves = cluster.leaves(names.system, LEASE)
  const broken = [
    ...(refused.length === able.length && able.length > 0 ? [`nobody was served: ${told}`] : []),
    ...refused.map((reply) => reply.json().message).filter((message) => !REFUSALS.includes(message)),
    ...running.overlaps.splice(0).map(({ began, during }) => `${began} began during ${during}`),
    ...running.failures.splice(0),
    ...running.retries.splice(0).map((error) => `made again: ${error}`),
    ...(leaves.length > 1 ? [`${leaves.length} leaves of the lease`] : [])
  ]
  if (broken.length > 0) throw new Error(broken.join('; '))
}

t.test(
  'one of several simultaneous starts is served, the others are refused, and no trace remains',
  async (t) => {
    const rounds = fc.array(round, { minLength: 1, maxLength: 3 })
    const schedule = fc.record({ ...cluster, rounds })
    await fc.assert(
      fc.asyncProperty(schedule, async ({ rounds, ...rest }) => {
        const setting = await setup(t, rest)
        try {
          for (const starts of rounds) await play(setting, starts)
        } finally {
          await tearDown(setting)
        }
      }),
      { numRuns: cases(extent(3, 6)), endOnFailure: true }
    )
  }
)

t.test('with a node down as well, without a wait, and while it comes back', async (t) => {
  const schedule = fc.record({ ...cluster, node: fc.nat({ max: 2 }), during: round, after: round })
  await fc.assert(
    fc.asyncProperty(schedule, async ({ node, during, after, ...rest }) => {
      const setting = await setup(t, rest)
      const { cluster } = setting.databases
      try {
        await cluster.down(node)
        await play(setting, during, node)
        await cluster.up(node)
        await play(setting, after)
      } finally {
        await tearDown(setting)
      }
    }),
    { numRuns: cases(extent(2, 3)), endOnFailure: true }
  )
})
