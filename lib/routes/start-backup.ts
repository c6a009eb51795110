import type { FastifyRequest } from 'fastify'
import { cutText, MOST } from '../bytes/cut-text.js'
import { InvalidParameterError } from '../errors.js'
import { backupStarted } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { BODY_ERRORS, errorReplies } from '../schemas/errors.js'
import type { Routes } from './context.js'
import { OWN_BODY, readParsedBody } from './request-body.js'

/** API 1: `POST /backups` */
export const startBackup: Routes = async (scope, { operations, options, urlsOf, describe }) => {
  scope.post(
    '',
    {
      config: OWN_BODY,
      // Only an empty object is taken.
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
            'keyUnavailable',
            'reservedId',
            'missingDatabase',
            'tooManyRequests',
            'closing'
          )
        }
      }
    },
    async (request, reply) => {
      const urlOf = urlsOf(request)
      const { id } = await operations.start({ requester: request.backupsRequester })
      reply.code(202)
      return { message: 'in-progress' as const, id, url: urlOf(`/ak/api/v2/backups/${id}`) }
    }
  )
}

/** Refuses a body that says something; OpenAPI would show a schema. @throws InvalidParameterError */
async function refuseBody({ body }: FastifyRequest): Promise<void> {
  if (body === undefined || body === null) return
  if (typeof body !== 'object' || Array.isArray(body)) throw new InvalidParameterError('body Expected object')
  const [key] = Object.keys(body)
  if (key !== undefined)
    throw new InvalidParameterError(`body/${cutText(key, MOST.name)} Unexpected property`)
}
