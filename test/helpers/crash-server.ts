/** A server in a process of its own, made to be killed. `SIGTERM` closes it; it then has to end by itself. */
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import nano from 'nano'
import dbBackups, { createCouchWebhookStore } from '../../lib/index.js'
import type { DatabaseNames, DbBackupsOptions } from '../../types/index.js'

export type ServerConfig = Pick<
  DbBackupsOptions,
  'databases' | 'timeouts' | 'retry' | 'clientWebhook' | 'spoolDirectory' | 'limits'
> & { url: string }

const { url, ...options }: ServerConfig = JSON.parse(process.env.SERVER_CONFIG ?? '')
const couch = nano(url)
const app = Fastify({ forceCloseConnections: true })
app.register(dbBackups, {
  ...options,
  couch,
  authorize: () => undefined,
  rebuildWhitelist: () => undefined,
  webhooks: createCouchWebhookStore({ couch, database: (options.databases as DatabaseNames).system })
})
// The HTTP API has no dry run.
app.put<{ Params: { id: string } }>('/api/v3/backups/:id/dry-run', async (request, reply) => {
  const { tx_id } = await app.dbBackups.restore({ id: request.params.id }, { dryRun: true })
  return reply.code(202).send({ message: 'in-progress', url: `/${tx_id}` })
})
// What the process has taken since it was last asked.
const peak = { rss: 0, turn: 0 }
function watch(): void {
  const from = performance.now()
  const cpu = process.cpuUsage()
  setTimeout(() => {
    const { user, system } = process.cpuUsage(cpu)
    // A turn takes as long as it works: what it waits for a busy core is none of it.
    const turn = Math.min(performance.now() - from, (user + system) / 1000)
    peak.turn = Math.max(peak.turn, turn)
    peak.rss = Math.max(peak.rss, process.memoryUsage.rss())
    watch()
  }, 1).unref()
}
watch()
app.get('/measure', async () => {
  const measured = { ...peak }
  Object.assign(peak, { rss: process.memoryUsage.rss(), turn: 0 })
  return measured
})
process.once('SIGTERM', () => void app.close())
app.listen({ host: '127.0.0.1', port: 0 }).then(() => {
  process.stdout.write(`${(app.server.address() as AddressInfo).port}\n`)
})
