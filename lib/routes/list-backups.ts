import { backupIds } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import type { RouteContext, Scope } from './context.js'

/** API 6: `GET /backups` */
export function listBackups(scope: Scope, { operations, describe }: RouteContext): void {
  scope.get(
    '',
    {
      exposeHeadRoute: false,
      schema: {
        ...describe('listBackups'),
        summary: 'Get the ids of all backups',
        tags: ['backups'],
        querystring: NoQuery,
        response: { 200: backupIds, ...errorReplies() }
      }
    },
    async () => operations.list()
  )
}
