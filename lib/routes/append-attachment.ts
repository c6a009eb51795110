import { errorCodes, type FastifyReply, type FastifyRequest } from 'fastify'
import { checkAttachmentName } from '../repository/appender.js'
import { AttachmentBody, AttachmentParams, attachmentStored, LongNameParams } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { errorReplies } from '../schemas/errors.js'
import type { HeldBytes } from '../spool/held-bytes.js'
import { readAttachmentBody } from './attachment-body.js'
import { type Ask, type RouteContext, replyUnknown, type Scope } from './context.js'
import { clientOf, OWN_BODY, streamBodies, withBody } from './request-body.js'

/** Room for the JSON around an attachment, and for characters that it escapes. */
const overhead = (bytes: number) => 2 * bytes + 64 * 1024

/** API 2: `PUT /backups/:backup_id/attachments/:att_name`. The scope must be its own: JSON is not parsed in it but streamed. */
export function appendAttachment(scope: Scope, context: RouteContext): void {
  const { schema, ...route } = routeOf(context)
  streamBodies(scope)
  scope.put('/:backup_id/attachments/:att_name', { ...route, schema }, (request, reply) => {
    const { backup_id: id, att_name: name } = request.params
    return append(context, request, reply, { id, name })
  })
}

/**
 * Registers the same for names that are longer than the host's router takes of a parameter (`maxParamLength`, which is
 * 100 by default). The route matches what has further segments as well: that is not there for anybody.
 */
export function appendLongNamed(scope: Scope, context: RouteContext, ask: Ask): void {
  const { schema, ...route } = routeOf(context)
  const url = '/:backup_id/attachments/*'
  const segments = `${scope.prefix}${url}`.split('/').length
  streamBodies(scope)
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
    (request, reply) => {
      const { backup_id: id, '*': name } = request.params
      return append(context, request, reply, { id, name })
    }
  )
}

function routeOf({ options, describe }: RouteContext) {
  return {
    config: OWN_BODY,
    bodyLimit: overhead(options.limits.attachmentBytes),
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
          'attachmentNotTaken',
          'bodyTooLarge',
          'mediaType',
          'uploadStalled',
          'compressedBody',
          'bodyAlreadyRead',
          'appendBusy',
          'noRoom',
          'tooManyAttachments'
        )
      }
    }
  }
}

function append(
  { operations, options }: RouteContext,
  request: FastifyRequest,
  reply: FastifyReply,
  { id, name }: { id: string; name: string }
) {
  const { attachmentBytes } = options.limits
  const bodyLimit = overhead(attachmentBytes)
  const limits = { received: bodyLimit, inflated: bodyLimit, idle: options.timeouts.idle }
  return withBody(request, reply, limits, async (body) => {
    if (Number(request.headers['content-length']) > bodyLimit)
      throw new errorCodes.FST_ERR_CTP_BODY_TOO_LARGE()
    checkAttachmentName(name)
    const read = (into: HeldBytes) => readAttachmentBody(body, into, attachmentBytes)
    await operations.append({ id, name, signal: clientOf(reply) }, read)
    return { message: 'ok' as const, att_name: name }
  })
}
