import { isIPv6 } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { InvalidParameterError } from '../errors.js'
import type { ResolvedOptions } from '../options.js'

/** Characters of a name with all its labels, and of a port with its colon. */
const MAX_HOST = 253 + 6
const HOST = /^(?:\[([0-9a-f:.]+)\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9.])?)(?::([0-9]{1,5}))?$/i

/**
 * Returns the origin that a client has reached the server at, `publicUrl` where that is set. A request without `Host`,
 * as HTTP/1.0 allows, has none but `localhost`.
 * @throws InvalidParameterError that names the header, when there is no address of a server in it
 */
export function originOf(request: FastifyRequest, { publicUrl }: ResolvedOptions): string {
  return publicUrl ?? `${protocolOf(request)}://${hostOf(request)}`
}

function protocolOf({ protocol }: FastifyRequest): string {
  if (protocol === 'http' || protocol === 'https') return protocol
  throw new InvalidParameterError('headers/x-forwarded-proto must be http or https')
}

function hostOf({ host, headers }: FastifyRequest): string {
  const forwarded = headers['x-forwarded-host']
  // Fastify takes the last of several, where it trusts who sends them: each proxy of a chain may add its own.
  const trusted = forwarded !== undefined && host === String(forwarded).split(',').at(-1)?.trim()
  if (host === '' && !trusted) return 'localhost'
  if (isHost(host)) return host
  throw new InvalidParameterError(
    `headers/${trusted ? 'x-forwarded-host' : 'host'} must be a host name or an address, with or without a port`
  )
}

function isHost(text: string): boolean {
  const parts = text.length <= MAX_HOST ? HOST.exec(text) : null
  if (!parts) return false
  const [, address, port] = parts
  return (
    (address === undefined || isIPv6(address)) &&
    Number(port ?? 0) <= 65_535 &&
    URL.canParse(`http://${text}`)
  )
}
