import { BackupIds } from '../schemas/backup.js'
import { errorReplies, NoQuery } from '../schemas/common.js'
import type { RouteContext, Scope } from './context.js'

/** API 6: `GET /backups` */
export function listBackups(scope: Scope, { operations }: RouteContext): void {
  scope.get(
    '',
    {
      exposeHeadRoute: false,
      schema: {
        summary: 'Get the ids of all backups',
        tags: ['backups'],
        querystring: NoQuery,
        response: { 200: BackupIds, ...errorReplies }
      }
    },
    async () => operations.list()
  )
}
