import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Requester } from '../../types/backups.js'
import type { AuthorizeContext } from '../../types/options.js'
import type { Operations } from '../operations/operations.js'
import type { ResolvedOptions } from '../options.js'

declare module 'fastify' {
  interface FastifySchema {
    /** Hides a route from OpenAPI documents; declared as by @fastify/swagger, which a host need not have. */
    hide?: boolean
  }
  interface FastifyRequest {
    /** The client that asks, as the host's `authorize` told. */
    backupsRequester: Requester | undefined
  }
}

/** Asks the host whether a request may be served, and replies to one that may not. */
export type Ask = (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply | undefined>

export interface RouteContext {
  operations: Operations
  options: ResolvedOptions
  ask: Ask
  /** Returns an operation's OpenAPI members besides its schemas. */
  describe(operation: string): { operationId: string; hide: boolean; security?: Record<string, string[]>[] }
  /** Returns a function that makes paths absolute. @throws InvalidParameterError if headers name no host */
  urlsOf(request: FastifyRequest): (path: string) => string
}

export type Routes = FastifyPluginAsyncTypebox<RouteContext>
export type Fastify = Parameters<Routes>[0]

/** The version that OpenAPI documents show; the others are the same. */
const DOCUMENTED_VERSION = 'v3'

/** Describes operations of one prefix and version. */
export function describer(
  scheme: AuthorizeContext['scheme'],
  version: string,
  { securitySchemes }: ResolvedOptions
): RouteContext['describe'] {
  const name = securitySchemes?.[scheme]
  return (operation) => ({
    operationId: scheme === 'session' ? `${operation}InSession` : operation,
    hide: version !== DOCUMENTED_VERSION,
    // Omitted unless the host names its schemes: @fastify/swagger fails on unknown names.
    ...(name !== undefined && { security: [{ [name]: [] }] })
  })
}
