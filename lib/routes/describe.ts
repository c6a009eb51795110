import type { AuthorizeContext } from '../../types/options.js'
import type { ResolvedOptions } from '../options.js'

/** The version that OpenAPI documents show; the others are the same. */
const DOCUMENTED_VERSION = 'v3'

/** What OpenAPI wants to know of a route besides its schemas. */
export interface Description {
  operationId: string
  hide: boolean
  security?: Record<string, string[]>[]
}

/** @returns a function that describes an operation of one prefix and version */
export function describer(
  scheme: AuthorizeContext['scheme'],
  version: string,
  { securitySchemes }: ResolvedOptions
): (operation: string) => Description {
  const name = securitySchemes?.[scheme]
  return (operation) => ({
    operationId: scheme === 'session' ? `${operation}InSession` : operation,
    hide: version !== DOCUMENTED_VERSION,
    // Left out unless the host names its schemes: @fastify/swagger fails on names that it does not know.
    ...(name !== undefined && { security: [{ [name]: [] }] })
  })
}
