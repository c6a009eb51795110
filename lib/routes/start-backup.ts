import { backupStarted } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { BODY_ERRORS, errorReplies } from '../schemas/errors.js'
import { backupPath, type Routes, refuseBody } from './context.js'
import { OWN_BODY, readParsedBody } from './request-body.js'

/** API 1: `POST /backups` */
export const startBackup: Routes = async (scope, { operations, options, urlsOf, describe }) => {
  scope.post(
    '',
    {
      config: OWN_BODY,
      // Nothing but an empty object is taken.
      bodyLimit: 1024,
      preParsing: readParsedBody(options.timeouts.idle),
      preValidation: refuseBody,
      schema: {
        ...describe('startBackup'),
        summary: 'Start a backup of all databases',
        description: 'Answers before the backup is done: read the backup until `in_progress` is false.',
        tags: ['backups'],
        querystring: NoQuery,
        response: {
          202: backupStarted,
          ...errorReplies(
            'backupRuns',
            'restoreRunsInstead',
            'unexpectedBody',
            'invalidJson',
            'bodyTooLarge',
            ...BODY_ERRORS,
            'versionsLate',
            'versionsTooLong',
            'reservedId',
            'missingDatabase',
            'closing'
          )
        }
      }
    },
    async (request, reply) => {
      const urlOf = urlsOf(request)
      const { id } = await operations.start({ requester: request.backupsRequester })
      return reply.code(202).send({ message: 'in-progress', id, url: urlOf(backupPath(id)) })
    }
  )
}
