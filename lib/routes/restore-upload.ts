import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import createError from '@fastify/error'
import { TooLargeError } from '../errors.js'
import { ErrorReply, errorReplies } from '../schemas/common.js'
import { RestoreQuery, RestoreStarted, UploadBody } from '../schemas/restore.js'
import { type RouteContext, type Scope, transactionUrl } from './context.js'
import { parseSkipList } from './skip-list.js'

const EncodingError = createError('DB_BACKUPS_ENCODING', 'a content encoding is not supported: %s', 415)

/** API 3: `PUT /backups`. The scope must be its own: JSON is not parsed in it but streamed. */
export function restoreUpload(scope: Scope, { operations, options, requesterOf, urlOf }: RouteContext): void {
  const { uploadBytes } = options.limits
  scope.removeContentTypeParser('application/json')
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
        summary: 'Start a restore of the backup in the body',
        tags: ['restores'],
        querystring: RestoreQuery,
        body: UploadBody,
        response: { 202: RestoreStarted, ...errorReplies, 413: ErrorReply, 415: ErrorReply, 507: ErrorReply }
      }
    },
    async (request, reply) => {
      const encoding = request.headers['content-encoding']
      // What is left of a refused upload is not read: the connection cannot be used again.
      reply.header('connection', 'close')
      if (encoding && encoding !== 'identity') throw new EncodingError(encoding)
      const skip = {
        system: parseSkipList('skip_system', request.query.skip_system),
        components: parseSkipList('skip_components', request.query.skip_components)
      }
      const body = (request.body as unknown as IncomingMessage | undefined) ?? Readable.from([])
      const { tx_id: txId } = await operations.restore(
        { body: Readable.from(limited(body, uploadBytes), { objectMode: false }) },
        { skip, requester: requesterOf(request) },
        (id) => urlOf(request, transactionUrl(id))
      )
      reply.removeHeader('connection')
      return reply.code(202).send({ message: 'in-progress', url: urlOf(request, transactionUrl(txId)) })
    }
  )
}

async function* limited(body: AsyncIterable<Buffer>, limit: number): AsyncGenerator<Buffer> {
  let size = 0
  for await (const piece of body) {
    size += piece.length
    if (size > limit) throw new TooLargeError(`the body is larger than ${limit} bytes`)
    yield piece
  }
}
