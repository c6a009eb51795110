import { backupIds } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import { sharedTurn } from '../waits/steps.js'
import type { Routes } from './context.js'

/** API 6: `GET /backups` */
export const listBackups: Routes = async (scope, { operations, describe }) => {
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
    async () => {
      const list = await operations.list()
      // Many lists may be there at once, each with thousands of ids.
      await sharedTurn()
      return list
    }
  )
}
