import t, { type Test } from 'tap'
import { buildHost } from './helpers/host.js'
import { type Responder, setupReplicas, shards } from './helpers/replicas-proxy.js'

/** Backs up two documents, of which a replica that lags shows one to the first `lags` feeds. A node starts before each. */
async function backUpWhileNodesStart(t: Test, lags: number) {
  let started = 0
  const lagging: Responder = ({ line, forward }) => {
    if (started >= lags || !/_components\/_changes.*include_docs=true/.test(line)) return undefined
    started++
    return forward(line.replace('GET ', '').replace(/limit=\d+/, 'limit=1')).then(({ status, json }) => ({
      status,
      json: { ...(json as object), pending: 0 }
    }))
  }
  const startedAt = performance.now()
  const uptime = (node: string) =>
    node === 'b@x' && started > 0 ? 10 * (lags + 1 - started) : 3600 + (performance.now() - startedAt) / 1000
  const { raw, on, cluster } = await setupReplicas(t, [lagging, shards({ knows: () => true, uptime })])
  await raw.write(raw.names.components, ['{"_id":"a"}', '{"_id":"b"}'])
  const { dbBackups } = (await buildHost(t, { on })).app
  const { dbs } = await (await dbBackups.start()).finished
  const asked = cluster.requests.filter((line) => /_components\/_sync_shards/.test(line)).length
  return { summary: dbs.athena_components!, asked }
}

t.test('a backup reads on when a node has started meanwhile, whose replicas may have lagged', async (t) => {
  const { summary, asked } = await backUpWhileNodesStart(t, 1)
  t.equal(summary.doc_count, 2)
  t.equal(summary.copies, undefined, 'the replicas agree')
  t.equal(asked, 2)
})

t.test('a backup whose nodes start again and again ends, and tells that replicas may lag', async (t) => {
  const { summary, asked } = await backUpWhileNodesStart(t, 20)
  t.equal(summary.copies, 'unchecked')
  t.equal(asked, 4)
})
