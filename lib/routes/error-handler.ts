import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import { cutError, cutText, MOST } from '../bytes/cut-text.js'
import {
  AppendBusyError,
  DatabaseUnavailableError,
  EncodingError,
  OperationInProgressError,
  TooManyDownloadsError,
  TooManyRequestsError,
  TooManyUploadsError
} from '../errors.js'
import { ACCEPTED_ENCODINGS } from './request-body.js'

const RETRY_AFTER = '5'

/** Returns whether the same request may succeed soon. */
const isOfTheMoment = (error: unknown) =>
  [
    DatabaseUnavailableError,
    TooManyDownloadsError,
    TooManyRequestsError,
    TooManyUploadsError,
    AppendBusyError
  ].some((kind) => error instanceof kind)

/** Replies with an error in the shape that clients of the API know: only its message, cut. */
export function handleError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (error instanceof OperationInProgressError) {
    const { statusCode, message, id } = error
    return reply.code(statusCode).send({ statusCode, message, id })
  }
  if (isOfTheMoment(error)) reply.header('retry-after', RETRY_AFTER)
  // RFC 9110, section 15.5.16
  if (error instanceof EncodingError) reply.header('accept-encoding', ACCEPTED_ENCODINGS)
  const statusCode = statusOf(error) ?? 500
  // Errors of the system and of the host's code may name paths and addresses.
  const told = statusCode !== 500 || /^(FST|DB_BACKUPS)_/.test(error.code ?? '')
  if (statusCode >= 500) request.log.error({ err: cutError(error) }, 'backup request failed')
  // Set here, since Fastify does not set it for a stream that failed before its first byte.
  reply.type('application/json; charset=utf-8')
  return reply.code(statusCode).send({
    statusCode,
    code: told ? error.code : undefined,
    error: STATUS_CODES[statusCode] ?? 'Error',
    message: told ? cutText(error.message, MOST.message) : 'the request could not be served'
  })
}

/** Returns an error's status, if any. Code of the host may throw anything. */
export function statusOf(error: unknown): number | undefined {
  const statusCode = (error as { statusCode?: unknown } | undefined | null)?.statusCode
  return typeof statusCode === 'number' && statusCode >= 400 && statusCode < 600 ? statusCode : undefined
}
