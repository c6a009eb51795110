import { BackupNotFoundError } from '../errors.js'
import { Backup } from '../schemas/backup.js'
import { BackupParams, ErrorReply, errorReplies, NoQuery } from '../schemas/common.js'
import type { RouteContext, Scope } from './context.js'

/** API 5: `GET /backups/:backup_id` */
export function getBackup(scope: Scope, { operations }: RouteContext): void {
  scope.get(
    '/:backup_id',
    {
      exposeHeadRoute: false,
      schema: {
        summary: 'Get a backup with its documents and attachments',
        tags: ['backups'],
        params: BackupParams,
        querystring: NoQuery,
        response: { 200: Backup, ...errorReplies, 404: ErrorReply }
      }
    },
    async (request, reply) => {
      try {
        const { body } = await operations.get(request.params.backup_id)
        reply.header('content-type', 'application/json; charset=utf-8')
        reply.header('cache-control', 'no-store')
        // A stream is sent as it is; the schema above describes it.
        return reply.send(body as never)
      } catch (error) {
        if (!(error instanceof BackupNotFoundError)) throw error
        return reply.code(404).send({ statusCode: 404, error: 'not_found', reason: 'missing' })
      }
    }
  )
}
