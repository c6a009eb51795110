import { BackupNotFoundError } from '../errors.js'
import { backup } from '../schemas/backup.js'
import { BackupParams, NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import type { RouteContext, Scope } from './context.js'

/** API 5: `GET /backups/:backup_id` */
export function getBackup(scope: Scope, { operations, describe }: RouteContext): void {
  scope.get(
    '/:backup_id',
    {
      exposeHeadRoute: false,
      schema: {
        ...describe('getBackup'),
        summary: 'Get a backup with its documents and attachments',
        description: 'Without documents while the backup runs.',
        tags: ['backups'],
        params: BackupParams,
        querystring: NoQuery,
        response: { 200: backup, ...errorReplies('invalidBackupId', 'unknownBackup') }
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
