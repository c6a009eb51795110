import type { OperatorRoutes } from '../context.js'
import { replyLines } from '../lines.js'
import { ById, CancelBody, DiffQuery, MOST_BYTES, PruneBody, StartBody, VerifyBody } from '../schemas.js'

/** Routes that make, read, compare, verify and remove backups, and that cancel what runs. */
export const backupRoutes: OperatorRoutes = async (scope, { backups }) => {
  const bodyLimit = MOST_BYTES

  scope.post('/backups', { bodyLimit, schema: { body: StartBody } }, async (request, reply) => {
    const { id } = await backups.start({ ...request.body, requester: request.backupsRequester })
    return reply.code(202).send({ message: 'in-progress', id })
  })

  scope.get('/backups/:id', { schema: { params: ById } }, async ({ params }) => backups.summary(params.id))

  scope.delete('/backups/:id', { schema: { params: ById } }, async ({ params }) => backups.remove(params.id))

  scope.post('/prune', { bodyLimit, schema: { body: PruneBody } }, async ({ body }) => backups.prune(body))

  scope.get(
    '/backups/:id/diff',
    { schema: { params: ById, querystring: DiffQuery } },
    async ({ params, query }, reply) => {
      const { against, values = false } = query
      return replyLines(reply, async ({ write, signal }) => {
        let changes = 0
        for await (const change of backups.diff(params.id, { against, values, signal })) {
          await write(change)
          changes++
        }
        return { end: true, changes }
      })
    }
  )

  scope.post(
    '/backups/:id/verify',
    { bodyLimit, schema: { params: ById, body: VerifyBody } },
    async ({ params, body }, reply) =>
      replyLines(reply, async ({ signal }) => ({
        report: await backups.verify(params.id, { ...body, signal })
      }))
  )

  scope.post('/cancel', { bodyLimit, schema: { body: CancelBody } }, async (request, reply) => {
    const { id } = await backups.cancel(request.body.id, { requester: request.backupsRequester })
    return reply.code(202).send({ message: 'cancelling', id })
  })
}
