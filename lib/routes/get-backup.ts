import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { BackupContent } from '../../types/backups.js'
import { BackupNotFoundError, CodedPartError, RangeAfterEndError } from '../errors.js'
import { Download } from '../operations/downloads.js'
import { backup, RangeHeaders } from '../schemas/backup.js'
import { BackupParams, NoQuery } from '../schemas/common.js'
import { errorReplies, SEAL_ERRORS } from '../schemas/errors.js'
import { breakOffWith, withoutBody } from './break-off.js'
import type { Routes } from './context.js'

/** Route options of @fastify/compress: a download that is coded cannot be resumed. */
const UNCOMPRESSED = { compress: false }

/** API 5: `GET /backups/:backup_id` */
export const getBackup: Routes = async (scope, { operations, describe }) => {
  scope.get(
    '/:backup_id',
    {
      ...UNCOMPRESSED,
      exposeHeadRoute: false,
      onSend: markCoded,
      schema: {
        ...describe('getBackup'),
        summary: 'Get a backup with its documents and attachments',
        // Not a reply of its own: generated clients would type every reply as either a backup or text.
        description:
          'Without documents while the backup runs. `Range: bytes=N-` is answered with 206 and the rest from that ' +
          'byte, when the length of the backup is known; `If-None-Match` with 304 while the backup is the same.',
        tags: ['backups'],
        params: BackupParams,
        querystring: NoQuery,
        headers: RangeHeaders,
        response: {
          200: backup,
          ...errorReplies(
            'invalidBackupId',
            'unknownBackup',
            'unknownLayout',
            'rangeAfterEnd',
            'damaged',
            ...SEAL_ERRORS,
            'codedPart',
            'tooManyDownloads'
          )
        }
      }
    },
    async (request, reply) => {
      try {
        return sendContent(request, reply, await operations.get(request.params.backup_id))
      } catch (error) {
        if (!(error instanceof BackupNotFoundError)) throw error
        return reply.code(404).send({ statusCode: 404, error: 'not_found', reason: 'missing' })
      }
    }
  )
}

function sendContent(request: FastifyRequest, reply: FastifyReply, content: BackupContent): FastifyReply {
  const { etag, length, body, bodyFrom } = content
  const send = (bytes: Readable) => {
    breakOffWith(bytes, reply)
    try {
      if (bytes instanceof Download) bytes.refuseIfFull()
    } catch (error) {
      withoutBody(reply)
      throw error
    }
    return reply.send(bytes)
  }
  reply.header('content-type', 'application/json; charset=utf-8')
  reply.header('cache-control', 'no-store, no-transform')
  reply.header('etag', etag)
  if (isNotModified(request.headers['if-none-match'], etag)) {
    body.destroy()
    reply.removeHeader('content-type')
    return reply.code(304).send()
  }
  if (length === undefined || !bodyFrom) return send(body)
  reply.header('accept-ranges', 'bytes')
  const start = rangeStart(request.headers, etag)
  if (start === undefined) {
    reply.header('content-length', length)
    return send(body)
  }
  if (start >= length) {
    reply.header('content-range', `bytes */${length}`)
    throw new RangeAfterEndError(String(length))
  }
  // Content-Range counts uncoded bytes; compression plugins look at this header.
  request.raw.headers['accept-encoding'] = 'identity'
  reply.code(206)
  reply.header('content-range', `bytes ${start}-${length - 1}/${length}`)
  reply.header('content-length', length - start)
  return send(bodyFrom(start))
}

/** Marks a body that the host's hook has coded: ranges count uncoded bytes, so it cannot be resumed. */
async function markCoded(_request: FastifyRequest, reply: FastifyReply, payload: unknown): Promise<unknown> {
  const etag = reply.getHeader('etag')
  const coding = reply.getHeader('content-encoding') ?? 'identity'
  if (typeof etag !== 'string' || coding === 'identity') return payload
  if (reply.statusCode === 206) {
    withoutBody(reply)
    throw new CodedPartError()
  }
  reply.header('etag', `W/${etag}`)
  for (const name of ['accept-ranges', 'content-length']) reply.removeHeader(name)
  return payload
}

/** Compares `If-None-Match` with weak tags, since codings make tags weak (RFC 9110, 13.1.2). */
function isNotModified(header: string | undefined, etag: string): boolean {
  if (header === undefined) return false
  return header.split(',').some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}

/** Returns N of `Range: bytes=N-` if `If-Range` allows; ignores other forms (RFC 9110, 14.2). */
function rangeStart(
  headers: { range?: string; 'if-range'?: string | string[] },
  etag: string
): number | undefined {
  const [, first] = /^bytes=[ \t]*(\d+)-[ \t]*$/i.exec(headers.range ?? '') ?? []
  const condition = headers['if-range']
  if (first === undefined || (condition !== undefined && condition !== etag)) return undefined
  return Number(first)
}
