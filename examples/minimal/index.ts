import { createHash, timingSafeEqual } from 'node:crypto'
import Fastify, { type FastifyRequest } from 'fastify'
import nano from 'nano'
import dbBackups, { createMemoryWebhookStore } from '../../lib/index.js'

const { API_KEY, COUCHDB_URL, DB_PREFIX: name = 'athena', PORT = '3000' } = process.env
if (!API_KEY) throw new Error('API_KEY must be set')
const sha256 = (text: string) => createHash('sha256').update(text).digest()
const expected = sha256(`Bearer ${API_KEY}`)

function authorize({ headers }: FastifyRequest): void {
  if (timingSafeEqual(sha256(headers.authorization ?? ''), expected)) return
  throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
}

const app = Fastify({ logger: true })
const webhooks = createMemoryWebhookStore() // forgotten when the server ends
app.register(dbBackups, {
  couch: nano(COUCHDB_URL ?? 'http://127.0.0.1:5984'),
  databases: { components: `${name}_components`, sessions: `${name}_sessions`, system: `${name}_system` },
  authorize,
  webhooks,
  rebuildWhitelist: () => app.log.info('the components have changed')
})
app.get<{ Params: { tx: string } }>('/ak/api/v1/webhooks/txs/:tx', async (request, reply) => {
  authorize(request)
  return (await webhooks.get(request.params.tx)) ?? reply.code(404).send({ statusCode: 404 })
})
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => app.close())
app.listen({ port: Number(PORT) })
