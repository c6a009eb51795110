import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault
} from 'fastify'
import type { Requester } from '../../types/backups.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { InvalidParameterError } from '../errors.js'
import type { Operations } from '../operations/operations.js'
import type { ResolvedOptions } from '../options.js'
import type { Description } from './describe.js'

export type Scope = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** What the routes share. */
export interface RouteContext {
  operations: Operations
  options: ResolvedOptions
  /** What OpenAPI wants to know of an operation. */
  describe(operation: string): Description
  /** Who asks, as `authorize` told. */
  requesterOf(request: FastifyRequest): Requester | undefined
  /**
   * Makes what turns paths of the API into absolute URLs. Asked before anything is done.
   * @throws InvalidParameterError when the request's headers name no host
   */
  urlsOf(request: FastifyRequest): (path: string) => string
}

/** Asks the host whether a request may be served; one that may not has been replied to. */
export type Ask = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>

/** Replies as Fastify does to a request for which there is no route. Tells nothing that was not asked. */
export async function replyUnknown(
  { method, url }: FastifyRequest,
  reply: FastifyReply
): Promise<FastifyReply> {
  const message = cutText(`Route ${method}:${url} not found`, MOST.message)
  return reply.code(404).send({ statusCode: 404, error: 'Not Found', message })
}

export const backupPath = (id: string): string => `/ak/api/v2/backups/${id}`

/** For routes whose body may be absent: clients send none, `null` or an empty object. */
export async function acceptNoBody(request: FastifyRequest): Promise<void> {
  request.body ??= {}
}

/**
 * For routes without a body, which clients take as above. Not a schema: OpenAPI would show it as a body to send.
 * @throws InvalidParameterError
 */
export async function refuseBody({ body }: FastifyRequest): Promise<void> {
  if (body === undefined || body === null) return
  if (typeof body !== 'object' || Array.isArray(body)) throw new InvalidParameterError('body Expected object')
  const [key] = Object.keys(body)
  if (key !== undefined)
    throw new InvalidParameterError(`body/${cutText(key, MOST.name)} Unexpected property`)
}
