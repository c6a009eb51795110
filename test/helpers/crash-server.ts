/** Runs a server in a process of its own, made to be killed. After `SIGTERM` the process has to end by itself. */
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import nano from 'nano'
import { TurnWatch } from '../../bench/turns.js'
import dbBackups, { createCouchWebhookStore } from '../../lib/index.js'
import type { DatabaseNames, DbBackupsOptions, VerifyDepth } from '../../types/index.js'
import { encryptionOf } from './sealed.js'

export type ServerConfig = Pick<
  DbBackupsOptions,
  'databases' | 'timeouts' | 'retry' | 'clientWebhook' | 'spoolDirectory' | 'limits' | 'safety'
> & {
  url: string
  /** Ids of the keys that backups are sealed with; the last is the current one. Default: they are not sealed. */
  keys?: string[]
}

const { url, keys, ...options }: ServerConfig = JSON.parse(process.env.SERVER_CONFIG ?? '')
const couch = nano(url)
const app = Fastify({ forceCloseConnections: true })
app.register(dbBackups, {
  safety: false,
  ...options,
  ...(keys && { encryption: encryptionOf(...keys) }),
  couch,
  authorize: () => undefined,
  rebuildWhitelist: () => undefined,
  webhooks: createCouchWebhookStore({ couch, database: (options.databases as DatabaseNames).system })
})
// the HTTP API has no dry run
app.put<{ Params: { id: string } }>('/api/v3/backups/:id/dry-run', async (request, reply) => {
  const { tx_id } = await app.dbBackups.restore({ id: request.params.id }, { dryRun: true })
  return reply.code(202).send({ message: 'in-progress', url: `/${tx_id}` })
})
// nor does it make full backups where incremental ones can be made
app.post('/api/v3/backups/full', async (_request, reply) => {
  const { id } = await app.dbBackups.start({ full: true })
  return reply.code(202).send({ id })
})
// nor does it prune
app.post<{ Params: { last: number } }>('/api/v3/backups/prune-to/:last', async (request, reply) => {
  const outcome = await app.dbBackups.prune({ keep: { last: Number(request.params.last) } })
  return reply.code(202).send(outcome)
})
// nor does it seal anew, or verify
app.post('/api/v3/backups/rekey', async (_request, reply) =>
  reply.code(202).send(await app.dbBackups.rekey())
)
app.post<{ Params: { id: string; depth: VerifyDepth } }>(
  '/api/v3/backups/:id/verify/:depth',
  async ({ params: { id, depth } }, reply) => reply.code(202).send(await app.dbBackups.verify(id, { depth }))
)
// memory and longest turn since the last request for them
let turns = new TurnWatch()
let rss = 0
setInterval(() => {
  rss = Math.max(rss, process.memoryUsage.rss())
}, 1).unref()
app.get('/measure', async () => {
  const { longest } = turns.stop()
  const measured = { rss, turn: longest.cpu }
  rss = process.memoryUsage.rss()
  turns = new TurnWatch()
  return measured
})
process.once('SIGTERM', () => {
  turns.stop()
  void app.close()
})
app.listen({ host: '127.0.0.1', port: 0 }).then(() => {
  process.stdout.write(`${(app.server.address() as AddressInfo).port}\n`)
})
