import { checkAttachmentName } from '../backup/append-attachment.js'
import { TooLargeError } from '../errors.js'
import { AttachmentBody, AttachmentParams, attachmentStored } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import type { RouteContext, Scope } from './context.js'
import { OWN_BODY, readParsedBody } from './request-body.js'

/** Room for the JSON around an attachment, and for characters that it escapes. */
const overhead = (bytes: number) => 2 * bytes + 64 * 1024

/** API 2: `PUT /backups/:backup_id/attachments/:att_name` */
export function appendAttachment(scope: Scope, { operations, options, describe }: RouteContext): void {
  const { attachmentBytes } = options.limits
  scope.put(
    '/:backup_id/attachments/:att_name',
    {
      config: OWN_BODY,
      bodyLimit: overhead(attachmentBytes),
      preParsing: readParsedBody(options.timeouts.idle),
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
            'bodyAlreadyRead',
            'compressedBody'
          )
        }
      }
    },
    async (request) => {
      const { backup_id: id, att_name: name } = request.params
      const { attachment } = request.body
      checkAttachmentName(name)
      if (Buffer.byteLength(attachment) > attachmentBytes) {
        throw new TooLargeError(`body/attachment is larger than ${attachmentBytes} bytes`)
      }
      await operations.attach(id, name, attachment)
      return { message: 'ok' as const, att_name: name }
    }
  )
}
