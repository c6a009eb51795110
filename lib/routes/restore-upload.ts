import { bodyTooLarge } from '../bytes/body.js'
import { transactionPath } from '../operations/transactions.js'
import { BODY_ERRORS, errorReplies, RESTORE_ERRORS } from '../schemas/errors.js'
import { RestoreQuery, restoreStarted, UploadBody } from '../schemas/restore.js'
import { clientWebhookCallback } from '../schemas/transaction.js'
import type { Routes } from './context.js'
import { OWN_BODY, streamBodies, withBody } from './request-body.js'
import { parseSkipLists } from './skip-list.js'

/** API 3: `PUT /backups`. JSON is not parsed but streamed. */
export const restoreUpload: Routes = async (scope, { operations, options, urlsOf, describe }) => {
  const { uploadBytes } = options.limits
  const limits = { received: uploadBytes, inflated: uploadBytes, idle: options.timeouts.idle }
  streamBodies(scope)
  scope.put(
    '',
    {
      config: OWN_BODY,
      bodyLimit: uploadBytes,
      schema: {
        ...describe('restoreUploadedBackup'),
        summary: 'Start a restore of the backup in the body',
        description:
          'Answers when the body has been read and checked, before the restore is done: read its transaction at `url`, or give a webhook.',
        tags: ['restores'],
        querystring: RestoreQuery,
        body: UploadBody,
        callbacks: clientWebhookCallback,
        response: {
          202: restoreStarted,
          ...errorReplies(
            ...RESTORE_ERRORS,
            'invalidBackup',
            'truncatedBackup',
            ...BODY_ERRORS,
            'uploadTooLarge',
            'missingDatabase',
            'noRoom',
            'tooManyUploads'
          )
        }
      }
    },
    (request, reply) =>
      withBody(request, reply, limits, async (body) => {
        if (Number(request.headers['content-length']) > uploadBytes) throw bodyTooLarge(uploadBytes)
        const skip = await parseSkipLists(request.query)
        const urlOf = urlsOf(request)
        const { tx_id: txId } = await operations.restoreFrom(
          { body },
          { skip, requester: request.backupsRequester },
          urlOf
        )
        reply.code(202)
        return { message: 'in-progress' as const, url: urlOf(transactionPath(txId)) }
      })
  )
}
