import { BackupNotFoundError } from '../errors.js'
import { BackupParams, errorReplies } from '../schemas/common.js'
import { RestoreBody, RestoreQuery, RestoreStarted } from '../schemas/restore.js'
import { acceptNoBody, type RouteContext, type Scope, transactionUrl } from './context.js'
import { parseSkipList } from './skip-list.js'

/** API 4: `PUT /backups/:backup_id` */
export function restoreStored(scope: Scope, { operations, requesterOf, urlOf }: RouteContext): void {
  scope.put(
    '/:backup_id',
    {
      bodyLimit: 64 * 1024,
      preValidation: acceptNoBody,
      schema: {
        summary: 'Start a restore of a stored backup',
        tags: ['restores'],
        params: BackupParams,
        querystring: RestoreQuery,
        body: RestoreBody,
        response: { 202: RestoreStarted, ...errorReplies }
      }
    },
    async (request, reply) => {
      const skip = {
        system: parseSkipList('skip_system', request.query.skip_system),
        components: parseSkipList('skip_components', request.query.skip_components)
      }
      try {
        const { tx_id: txId } = await operations.restore(
          { id: request.params.backup_id },
          { skip, clientWebhookUrl: request.body.client_webhook_url, requester: requesterOf(request) },
          (id) => urlOf(request, transactionUrl(id))
        )
        return reply.code(202).send({ message: 'in-progress', url: urlOf(request, transactionUrl(txId)) })
      } catch (error) {
        if (!(error instanceof BackupNotFoundError)) throw error
        const message = 'cannot restore, could not load backup doc.'
        return reply.code(400).send({ statusCode: 400, message })
      }
    }
  )
}
