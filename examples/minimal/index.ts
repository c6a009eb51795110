import Fastify from 'fastify'
import nano from 'nano'
import dbBackups, { createCouchWebhookStore } from '../../lib/index.js'

const couch = nano(process.env.COUCHDB_URL ?? 'http://admin:secret@127.0.0.1:5984')
const token = process.env.TOKEN
const app = Fastify({ logger: true })
const webhooks = createCouchWebhookStore({ couch, database: 'athena_system' })

function authorize(request: { headers: { authorization?: string } }): void {
  if (token && request.headers.authorization === `Bearer ${token}`) return
  throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
}

app.register(dbBackups, {
  couch,
  databases: { components: 'athena_components', sessions: 'athena_sessions', system: 'athena_system' },
  authorize,
  webhooks,
  rebuildWhitelist: () => app.log.info('the components have changed')
})

// where the `url` of a started restore leads
app.get<{ Params: { tx: string } }>('/ak/api/v1/webhooks/txs/:tx', async (request, reply) => {
  authorize(request)
  return (await webhooks.get(request.params.tx)) ?? reply.code(404).send({ statusCode: 404 })
})

app.listen({ port: Number(process.env.PORT ?? 3000) }).catch((error) => {
  app.log.error(error)
  process.exit(1)
})
