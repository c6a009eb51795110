import { BackupNotFoundError } from '../errors.js'
import { transactionPath } from '../operations/transactions.js'
import { BackupParams } from '../schemas/common.js'
import { BODY_ERRORS, errorReplies, RESTORE_ERRORS, SEAL_ERRORS } from '../schemas/errors.js'
import { RestoreBody, RestoreQuery, restoreStarted } from '../schemas/restore.js'
import { clientWebhookCallback } from '../schemas/transaction.js'
import type { Routes } from './context.js'
import { OWN_BODY, readParsedBody } from './request-body.js'
import { parseSkipLists } from './skip-list.js'

/** Bytes of a webhook URL (2,048 characters of 3 bytes) and of the JSON around it. */
const MOST_BYTES = 8 * 1024

/** API 4: `PUT /backups/:backup_id` */
export const restoreStored: Routes = async (scope, { operations, options, urlsOf, describe }) => {
  scope.put(
    '/:backup_id',
    {
      config: OWN_BODY,
      bodyLimit: MOST_BYTES,
      preParsing: readParsedBody(options.timeouts.idle),
      preValidation: async (request) => {
        // Clients without a webhook send no body, `null` or an empty object.
        request.body ??= {}
      },
      schema: {
        ...describe('restoreBackup'),
        summary: 'Start a restore of a stored backup',
        description: 'Answers before the restore is done: read its transaction at `url`, or give a webhook.',
        tags: ['restores'],
        params: BackupParams,
        querystring: RestoreQuery,
        body: RestoreBody,
        callbacks: clientWebhookCallback,
        response: {
          202: restoreStarted,
          ...errorReplies(
            ...RESTORE_ERRORS,
            'invalidBackupId',
            'invalidJson',
            'nothingToRestore',
            'unknownLayout',
            ...SEAL_ERRORS,
            'bodyTooLarge',
            'tooManyRequests',
            ...BODY_ERRORS
          )
        }
      }
    },
    async (request, reply) => {
      const skip = await parseSkipLists(request.query)
      const urlOf = urlsOf(request)
      try {
        const { tx_id: txId } = await operations.restoreFrom(
          { id: request.params.backup_id },
          { skip, clientWebhookUrl: request.body.client_webhook_url, requester: request.backupsRequester },
          urlOf
        )
        reply.code(202)
        return { message: 'in-progress' as const, url: urlOf(transactionPath(txId)) }
      } catch (error) {
        if (!(error instanceof BackupNotFoundError)) throw error
        const message = 'cannot restore, could not load backup doc.'
        return reply.code(400).send({ statusCode: 400, message })
      }
    }
  )
}
