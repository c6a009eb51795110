import type { FastifyInstance } from 'fastify'
import type { RestoreOptions } from '../../../types/backups.js'
import { byDatabase } from '../../databases.js'
import { NotRunningError, TransactionNotFoundError } from '../../errors.js'
import { streamOf } from '../../routes/request-body.js'
import type { OperatorRoutes } from '../context.js'
import { replyLines } from '../lines.js'
import { ById, ByTransaction, MOST_BYTES, PreviewBody, RestoreBody, UploadQuery } from '../schemas.js'

/** Routes that preview and start restores, and tell how they go. */
export const restoreRoutes: OperatorRoutes = async (scope, context) => {
  const { backups } = context
  const bodyLimit = MOST_BYTES

  scope.post(
    '/backups/:id/preview',
    { bodyLimit, schema: { params: ById, body: PreviewBody } },
    async (request, reply) =>
      replyLines(reply, async ({ write, signal }) => {
        const options: RestoreOptions = {
          ...request.body,
          dryRun: true,
          requester: request.backupsRequester,
          onChange: write
        }
        const { tx_id: id, finished } = await backups.restore({ id: request.params.id }, options)
        // Nobody needs it any more. It may have ended.
        const stop = () => void backups.cancel(id).catch(unlessEnded)
        signal.addEventListener('abort', stop, { once: true })
        if (signal.aborted) stop()
        await write({ running: true, id })
        return { outcome: await finished }
      })
  )

  scope.post(
    '/backups/:id/restore',
    { bodyLimit, schema: { params: ById, body: RestoreBody } },
    async (request, reply) => {
      const options = { ...request.body, requester: request.backupsRequester }
      const { tx_id } = await backups.restore({ id: request.params.id }, options)
      return reply.code(202).send({ message: 'in-progress', tx_id })
    }
  )

  scope.get('/restores/:tx', { schema: { params: ByTransaction } }, async ({ params }) => {
    const transaction = await backups.transaction(params.tx)
    if (!transaction) throw new TransactionNotFoundError(params.tx)
    return transaction
  })

  scope.register(uploadRoutes, context)
}

/** The route that previews the restore of an upload. */
const uploadRoutes: OperatorRoutes = async (scope, { backups }) => {
  keepStreams(scope)
  scope.put('/preview', { schema: { querystring: UploadQuery } }, async (request, reply) => {
    const { query } = request
    const options: RestoreOptions = {
      dryRun: true,
      skip: byDatabase((database) => [query[`skip_${database}`] ?? []].flat()),
      requester: request.backupsRequester
    }
    const { tx_id } = await backups.restore({ body: streamOf(request) }, options)
    return reply.code(202).send({ message: 'in-progress', tx_id })
  })
}

/** Leaves bodies streams: a backup may be larger than memory. */
function keepStreams(scope: Pick<FastifyInstance, 'removeAllContentTypeParsers' | 'addContentTypeParser'>) {
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
}

function unlessEnded(error: unknown): void {
  if (!(error instanceof NotRunningError)) throw error
}
