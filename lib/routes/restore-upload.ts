import { Readable } from 'node:stream'
import createError from '@fastify/error'
import { TooLargeError } from '../errors.js'
import { errorReplies } from '../schemas/errors.js'
import { RestoreQuery, restoreStarted, UploadBody } from '../schemas/restore.js'
import { clientWebhookCallback } from '../schemas/transaction.js'
import { within } from '../within.js'
import { type RouteContext, type Scope, transactionUrl } from './context.js'
import { parseSkipList } from './skip-list.js'

const EncodingError = createError('DB_BACKUPS_ENCODING', 'a content encoding is not supported: %s', 415)
const SilentError = createError('DB_BACKUPS_UPLOAD_TIMEOUT', 'the body stopped arriving', 408)

/** What is read of a refused upload, at most, before the reply. */
const DRAIN_BYTES = 64 * 1024 * 1024
const DRAIN_MS = 3000

/** API 3: `PUT /backups`. The scope must be its own: JSON is not parsed in it but streamed. */
export function restoreUpload(scope: Scope, context: RouteContext): void {
  const { operations, options, requesterOf, urlOf, describe } = context
  const { uploadBytes } = options.limits
  // The host's parsers, and Fastify's own for text, would read the body into memory.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('application/json', (_request, payload, done) => done(null, payload))
  scope.put(
    '',
    {
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
            'uploadTooLarge',
            'mediaType',
            'compressedBody',
            'closing',
            'noRoom'
          )
        }
      }
    },
    async (request, reply) => {
      const body = (request.body as unknown as Readable | undefined) ?? Readable.from([])
      try {
        const encoding = request.headers['content-encoding']
        if (encoding && encoding !== 'identity') throw new EncodingError(encoding)
        if (Number(request.headers['content-length']) > uploadBytes) throw tooLarge(uploadBytes)
        const skip = {
          system: parseSkipList('skip_system', request.query.skip_system),
          components: parseSkipList('skip_components', request.query.skip_components)
        }
        const pieces = limited(body, uploadBytes, options.timeouts.idle)
        const { tx_id: txId } = await operations.restore(
          { body: Readable.from(pieces, { objectMode: false }) },
          { skip, requester: requesterOf(request) },
          (id) => urlOf(request, transactionUrl(id))
        )
        return await reply
          .code(202)
          .send({ message: 'in-progress', url: urlOf(request, transactionUrl(txId)) })
      } catch (error) {
        reply.header('connection', 'close')
        await drain(body)
        throw error
      }
    }
  )
}

const tooLarge = (limit: number) => new TooLargeError(`the body is larger than ${limit} bytes`)

/** Bounds an upload in size, and how long its sender may be silent. Leaves the connection open for the reply. */
async function* limited(body: Readable, limit: number, idle: number): AsyncGenerator<Buffer> {
  const pieces = body.iterator({ destroyOnReturn: false })
  let size = 0
  try {
    for (;;) {
      const next = await within(
        idle,
        () => new SilentError(),
        () => pieces.next()
      )
      if (next.done) return
      size += next.value.length
      if (size > limit) throw tooLarge(limit)
      yield next.value
    }
  } finally {
    // Nothing more would come of the body while an iterator listens to it. Not awaited: a silent one does not return.
    void pieces.return?.()
  }
}

/** Reads on, for a moment: a client that is still sending would not see the reply. */
async function drain(body: Readable): Promise<void> {
  if (body.readableEnded || body.destroyed) return
  let left = DRAIN_BYTES
  const ended = new Promise<void>((resolve) => {
    body.once('close', resolve).once('end', resolve).once('error', resolve)
    body.on('data', (piece: Buffer) => {
      left -= piece.length
      if (left < 0) resolve()
    })
  })
  await within(
    DRAIN_MS,
    () => new SilentError(),
    () => ended
  ).catch(() => undefined)
  body.pause()
}
