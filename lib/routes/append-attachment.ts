import { errorCodes, type FastifyReply, type FastifyRequest } from 'fastify'
import { checkAttachmentName } from '../bytes/attachment-bounds.js'
import { AttachmentBody, AttachmentParams, attachmentStored, LongNameParams } from '../schemas/backup.js'
import { NoQuery } from '../schemas/common.js'
import { BODY_ERRORS, errorReplies } from '../schemas/errors.js'
import { readAttachmentBody } from './attachment-body.js'
import type { RouteContext, Routes } from './context.js'
import { clientOf, OWN_BODY, streamBodies, withBody } from './request-body.js'

/** Bytes for the JSON around an attachment, and for characters that it escapes. */
const overhead = (bytes: number) => 2 * bytes + 64 * 1024

/** API 2: `PUT /backups/:backup_id/attachments/:att_name`. JSON is not parsed but streamed. */
export const appendAttachment: Routes = async (scope, context) => {
  streamBodies(scope)
  scope.put('/:backup_id/attachments/:att_name', routeOf(context), (request, reply) => {
    const { backup_id: id, att_name: name } = request.params
    return append(context, request, reply, { id, name })
  })
}

/** Takes names longer than `maxParamLength`. The scope refuses further segments, which also match. */
export const appendLongNamed: Routes = async (scope, context) => {
  const { schema, ...route } = routeOf(context)
  streamBodies(scope)
  scope.put(
    '/:backup_id/attachments/*',
    { ...route, schema: { ...schema, params: LongNameParams, hide: true } },
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
          ...BODY_ERRORS,
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
    await operations.append({ id, name, signal: clientOf(reply) }, (into) =>
      readAttachmentBody(body, into, attachmentBytes)
    )
    return { message: 'ok' as const, att_name: name }
  })
}
