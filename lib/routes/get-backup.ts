import { pipeline, Readable } from 'node:stream'
import { createGzip } from 'node:zlib'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { BackupContent } from '../../types/backups.js'
import { BackupNotFoundError, CodedPartError, RangeAfterEndError } from '../errors.js'
import { Download } from '../operations/downloads.js'
import { backup, RangeHeaders } from '../schemas/backup.js'
import { BackupParams, NoQuery } from '../schemas/common.js'
import { errorReplies, SEAL_ERRORS } from '../schemas/errors.js'
import { breakOffAfter, breakOffWith, withoutBody } from './break-off.js'
import type { Routes } from './context.js'

/** Route options of @fastify/compress: {@link codeBody} compresses. */
const UNCOMPRESSED = { compress: false }

/** A fast level: the host's other work shares the machine with downloads. */
const GZIP = { level: 3, chunkSize: 64 * 1024 }

/** Quality of what a client does not name: low enough that whatever it names comes first. */
const UNNAMED = { identity: 0.0002, gzip: 0.0001 }

const ITEM = /^\s*([\w!#$%&'*+.^`|~-]+)\s*(?:;\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?$/i

/** API 5: `GET /backups/:backup_id` */
export const getBackup: Routes = async (scope, { operations, describe }) => {
  scope.get(
    '/:backup_id',
    {
      ...UNCOMPRESSED,
      exposeHeadRoute: false,
      onSend: codeBody,
      schema: {
        ...describe('getBackup'),
        summary: 'Get a backup with its documents and attachments',
        // Not a reply of its own: generated clients would type every reply as either a backup or text.
        description:
          'Without documents while the backup runs. `Range: bytes=N-` is answered with 206 and the rest from that ' +
          'byte, when the length of the backup is known; `If-None-Match` with 304 while the backup is the same. ' +
          'Clients that prefer gzip get the whole as gzip, with a weak `ETag` and without a length. To go on where ' +
          'such a download broke, count the bytes that were inflated, and ask for the rest with the `ETag` without ' +
          '`W/` as `If-Range`: parts are never gzip.',
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
  // Content-Range counts uncoded bytes.
  hideAccepted(request)
  reply.code(206)
  reply.header('content-range', `bytes ${start}-${length - 1}/${length}`)
  reply.header('content-length', length - start)
  return send(bodyFrom(start))
}

/** Sends gzip to clients that prefer it, unless a hook of the host has coded the body, which is marked as well. */
async function codeBody(request: FastifyRequest, reply: FastifyReply, payload: unknown): Promise<unknown> {
  const etag = reply.getHeader('etag')
  if (typeof etag !== 'string' || reply.statusCode >= 400) return payload
  varyByCoding(reply)
  const isCoded = (reply.getHeader('content-encoding') ?? 'identity') !== 'identity'
  if (reply.statusCode === 206) {
    if (!isCoded) return payload
    withoutBody(reply)
    throw new CodedPartError()
  }
  if (!isCoded && !prefersGzip(request.headers['accept-encoding'])) return payload
  reply.header('etag', `W/${etag}`)
  for (const name of ['accept-ranges', 'content-length']) reply.removeHeader(name)
  if (isCoded || !(payload instanceof Readable)) return payload
  reply.header('content-encoding', 'gzip')
  hideAccepted(request)
  // A failure of the body destroys the coded one, which so gets no trailer.
  const coded = pipeline(payload, createGzip(GZIP), () => undefined)
  breakOffAfter(coded, reply)
  return coded
}

/**
 * Returns whether a client prefers gzip to the body as it is (RFC 9110, 12.5.3). It does not where both are
 * equal, since only the body as it is can be resumed, nor where it takes neither.
 */
function prefersGzip(header: string | undefined): boolean {
  const named = qualitiesIn(header ?? '')
  const others = named.get('*')
  const gzip = named.get('gzip') ?? named.get('x-gzip') ?? others ?? UNNAMED.gzip
  return gzip > (named.get('identity') ?? others ?? UNNAMED.identity)
}

/** Returns qualities, 0 to 1, by the names of codings. Leaves out what is malformed. */
function qualitiesIn(header: string): Map<string, number> {
  const qualities = new Map<string, number>()
  for (const item of header.split(',')) {
    const [, name, quality = '1'] = ITEM.exec(item) ?? []
    if (name !== undefined) qualities.set(name.toLowerCase(), Number(quality))
  }
  return qualities
}

/** Adds to the `Vary` of the host. */
function varyByCoding(reply: FastifyReply): void {
  const others = [reply.getHeader('vary') ?? []].flat().join(', ')
  if (/(^|,)\s*(\*|accept-encoding)\s*(,|$)/i.test(others)) return
  reply.header('vary', others === '' ? 'Accept-Encoding' : `${others}, Accept-Encoding`)
}

/** Keeps hooks and plugins that look at the request from coding what is a part, or coded already. */
function hideAccepted(request: FastifyRequest): void {
  request.raw.headers['accept-encoding'] = 'identity'
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
