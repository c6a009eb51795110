import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { abandon, drain } from '../discard.js'
import { transactionPath } from '../operations/transactions.js'
import { errorReplies } from '../schemas/errors.js'
import { RestoreQuery, restoreStarted, UploadBody } from '../schemas/restore.js'
import { clientWebhookCallback } from '../schemas/transaction.js'
import type { RouteContext, Scope } from './context.js'
import { OWN_BODY, readBody, SilentError, tooLarge } from './request-body.js'
import { parseSkipLists } from './skip-list.js'

/** API 3: `PUT /backups`. The scope must be its own: JSON is not parsed in it but streamed. */
export function restoreUpload(scope: Scope, context: RouteContext): void {
  const { operations, options, requesterOf, urlOf, describe } = context
  const { uploadBytes } = options.limits
  const limits = { received: uploadBytes, inflated: uploadBytes, idle: options.timeouts.idle }
  // The host's parsers, and Fastify's own for text, would read the body into memory.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
  scope.put(
    '',
    {
      config: OWN_BODY,
      bodyLimit: uploadBytes,
      // The body is checked as it streams.
      validatorCompiler: (route) =>
        route.httpPart === 'body'
          ? () => true
          : (scope.validatorCompiler as NonNullable<typeof scope.validatorCompiler>)(route),
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
            'restoreRuns',
            'backupRunsInstead',
            'invalidSkipList',
            'invalidWebhook',
            'invalidBackup',
            'truncatedBackup',
            'notRestorable',
            'uploadStalled',
            'bodyAlreadyRead',
            'uploadTooLarge',
            'mediaType',
            'compressedBody',
            'transactionsLate',
            'reservedId',
            'closing',
            'noRoom'
          )
        }
      }
    },
    async (request, reply) => {
      const body = (request.body as unknown as Readable | undefined) ?? Readable.from([])
      try {
        if (Number(request.headers['content-length']) > uploadBytes) throw tooLarge(uploadBytes)
        const skip = parseSkipLists(request.query)
        const read = readBody(request, body, limits)
        const { tx_id: txId } = await operations
          .restoreFrom({ body: read }, { skip, requester: requesterOf(request) }, (path) =>
            urlOf(request, path)
          )
          // What is left of the request is for `drain`.
          .finally(() => read.destroy())
        return await reply
          .code(202)
          .send({ message: 'in-progress', url: urlOf(request, transactionPath(txId)) })
      } catch (error) {
        await leave(request, reply, body, error)
        throw error
      }
    }
  )
}

/**
 * Leaves a body that was refused so that its sender sees the reply. HTTP/1.1 closes the connection with it, so the body
 * is read on before, unless nothing comes of it; HTTP/2 has streams that end by themselves, and no such header.
 */
async function leave(
  request: FastifyRequest,
  reply: FastifyReply,
  body: Readable,
  error: unknown
): Promise<void> {
  if (request.raw.httpVersionMajor >= 2) return abandon(body)
  reply.header('connection', 'close')
  if (!(error instanceof SilentError)) await drain(body)
}
