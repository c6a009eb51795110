import { BackupStarted } from '../schemas/backup.js'
import { errorReplies, NoBody, NoQuery } from '../schemas/common.js'
import { acceptNoBody, backupUrl, type RouteContext, type Scope } from './context.js'

/** API 1: `POST /backups` */
export function startBackup(scope: Scope, { operations, requesterOf, urlOf }: RouteContext): void {
  scope.post(
    '',
    {
      preValidation: acceptNoBody,
      schema: {
        summary: 'Start a backup of all databases',
        tags: ['backups'],
        querystring: NoQuery,
        body: NoBody,
        response: { 202: BackupStarted, ...errorReplies }
      }
    },
    async (request, reply) => {
      const { id } = await operations.start(requesterOf(request))
      return reply.code(202).send({ message: 'in-progress', id, url: urlOf(request, backupUrl(id)) })
    }
  )
}
