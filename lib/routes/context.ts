import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Requester } from '../../types/backups.js'
import type { AuthorizeContext } from '../../types/options.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { InvalidParameterError } from '../errors.js'
import type { Operations } from '../operations/operations.js'
import type { ResolvedOptions } from '../options.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks, as the host's `authorize` told. */
    backupsRequester: Requester | undefined
  }
}

/** Asks the host whether a request may be served, and replies to one that may not. */
export type Ask = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>

/** What the routes of one prefix and version share. */
export interface RouteContext {
  operations: Operations
  options: ResolvedOptions
  ask: Ask
  /** Returns what OpenAPI wants to know of an operation. */
  describe(operation: string): Description
  /**
   * Returns what makes paths of the API absolute URLs. Called before anything is done.
   * @throws InvalidParameterError when the request's headers name no host
   */
  urlsOf(request: FastifyRequest): (path: string) => string
}

/** Registers routes. */
export type Routes = FastifyPluginAsyncTypebox<RouteContext>
export type Scope = Parameters<Routes>[0]

/** The version that OpenAPI documents show; the others are the same. */
const DOCUMENTED_VERSION = 'v3'

/** What OpenAPI wants to know of a route besides its schemas. */
interface Description {
  operationId: string
  hide: boolean
  security?: Record<string, string[]>[]
}

/** Returns a function that describes an operation of one prefix and version. */
export function describer(
  scheme: AuthorizeContext['scheme'],
  version: string,
  { securitySchemes }: ResolvedOptions
): RouteContext['describe'] {
  const name = securitySchemes?.[scheme]
  return (operation) => ({
    operationId: scheme === 'session' ? `${operation}InSession` : operation,
    hide: version !== DOCUMENTED_VERSION,
    // Left out unless the host names its schemes: @fastify/swagger fails on names that it does not know.
    ...(name !== undefined && { security: [{ [name]: [] }] })
  })
}

export const backupPath = (id: string): string => `/ak/api/v2/backups/${id}`

/** Takes a body that may be absent: clients send none, `null` or an empty object. */
export async function acceptNoBody(request: FastifyRequest): Promise<void> {
  request.body ??= {}
}

/**
 * Refuses a body that is not absent as above. Not a schema: OpenAPI would show it as a body to send.
 * @throws InvalidParameterError
 */
export async function refuseBody({ body }: FastifyRequest): Promise<void> {
  if (body === undefined || body === null) return
  if (typeof body !== 'object' || Array.isArray(body)) throw new InvalidParameterError('body Expected object')
  const [key] = Object.keys(body)
  if (key !== undefined)
    throw new InvalidParameterError(`body/${cutText(key, MOST.name)} Unexpected property`)
}
