import { checkAttachmentName } from '../backup/append-attachment.js'
import { TooLargeError } from '../errors.js'
import { AttachmentBody, AttachmentParams, attachmentStored, LongNameParams } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import { type Ask, type RouteContext, replyUnknown, type Scope } from './context.js'
import { readParsedBody } from './request-body.js'

/** Room for the JSON around an attachment, and for characters that it escapes. */
const overhead = (bytes: number) => 2 * bytes + 64 * 1024

/** API 2: `PUT /backups/:backup_id/attachments/:att_name` */
export function appendAttachment(scope: Scope, context: RouteContext): void {
  const { schema, ...route } = routeOf(context)
  scope.put('/:backup_id/attachments/:att_name', { ...route, schema }, async ({ params, body }) =>
    append(context, params.backup_id, params.att_name, body.attachment)
  )
}

/**
 * Registers the same for names that are longer than the host's router takes of a parameter (`maxParamLength`, which is
 * 100 by default). The route matches what has further segments as well: that is not there for anybody.
 */
export function appendLongNamed(scope: Scope, context: RouteContext, ask: Ask): void {
  const { schema, ...route } = routeOf(context)
  const url = '/:backup_id/attachments/*'
  const segments = `${scope.prefix}${url}`.split('/').length
  scope.put(
    url,
    {
      ...route,
      schema: { ...schema, params: LongNameParams, hide: true },
      async onRequest(request, reply) {
        if (request.url.split('?')[0].split('/').length !== segments) return replyUnknown(request, reply)
        return ask(request, reply)
      }
    },
    async ({ params, body }) => append(context, params.backup_id, params['*'], body.attachment)
  )
}

function routeOf({ options, describe }: RouteContext) {
  return {
    bodyLimit: overhead(options.limits.attachmentBytes),
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
          'compressedBody'
        )
      }
    }
  }
}

async function append({ operations, options }: RouteContext, id: string, name: string, attachment: string) {
  const { attachmentBytes } = options.limits
  checkAttachmentName(name)
  if (Buffer.byteLength(attachment) > attachmentBytes) {
    throw new TooLargeError(`body/attachment is larger than ${attachmentBytes} bytes`)
  }
  await operations.attach(id, name, attachment)
  return { message: 'ok' as const, att_name: name }
}
