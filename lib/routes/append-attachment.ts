import { errorCodes } from 'fastify'
import { checkAttachmentName } from '../backup/append-attachment.js'
import { AttachmentBody, AttachmentParams, attachmentStored } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import type { HeldBytes } from '../spool/held-bytes.js'
import { readAttachmentBody } from './attachment-body.js'
import type { RouteContext, Scope } from './context.js'
import { clientOf, streamBodies, withBody } from './request-body.js'

/** Room for the JSON around an attachment, and for characters that it escapes. */
const overhead = (bytes: number) => 2 * bytes + 64 * 1024

/** API 2: `PUT /backups/:backup_id/attachments/:att_name`. The scope must be its own: JSON is not parsed in it but streamed. */
export function appendAttachment(scope: Scope, { operations, options, describe }: RouteContext): void {
  const { attachmentBytes } = options.limits
  const bodyLimit = overhead(attachmentBytes)
  const limits = { received: bodyLimit, inflated: bodyLimit, idle: options.timeouts.idle }
  streamBodies(scope)
  scope.put(
    '/:backup_id/attachments/:att_name',
    {
      bodyLimit,
      schema: {
        ...describe('appendAttachment'),
        summary: 'Append data to a backup',
        tags: ['backups'],
        params: AttachmentParams,
        querystring: NoQuery,
        body: AttachmentBody,
        response: {
          200: attachmentStored,
          ...errorReplies(
            'invalidBackupId',
            'invalidAttachment',
            'invalidAttachmentName',
            'invalidJson',
            'nothingToAppendTo',
            'unknownLayout',
            'attachmentTooLarge',
            'bodyTooLarge',
            'mediaType',
            'uploadStalled',
            'compressedBody',
            'appendBusy',
            'noRoom',
            'tooManyAttachments'
          )
        }
      }
    },
    (request, reply) =>
      withBody(request, reply, limits, async (body) => {
        if (Number(request.headers['content-length']) > bodyLimit)
          throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE()
        const { backup_id: id, att_name: name } = request.params
        checkAttachmentName(name)
        const read = (into: HeldBytes) => readAttachmentBody(body, into, attachmentBytes)
        await operations.append({ id, name, signal: clientOf(reply) }, read)
        return { message: 'ok' as const, att_name: name }
      })
  )
}
