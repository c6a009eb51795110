import type { FastifyRequest } from 'fastify'
import { InvalidParameterError } from '../errors.js'
import type { ResolvedOptions } from '../options.js'

/** Most characters of a host name, without a dot at its end. */
const MAX_NAME = 253
const HOST = /^(?:\[[0-9a-f:.]+\]|([a-z0-9._-]+))(?::([0-9]{1,5}))?$/i
/** Part of a name between dots. Names inside a network may hold underscores. */
const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i

/** Returns `publicUrl`, or the origin of the request (HTTP/1.0: localhost). @throws InvalidParameterError */
export function originOf(request: FastifyRequest, { publicUrl }: ResolvedOptions): string {
  return publicUrl ?? `${protocolOf(request)}://${hostOf(request)}`
}

/** Returns the scheme in lower case: schemes are case-insensitive (RFC 3986, 3.1). */
function protocolOf({ protocol }: FastifyRequest): string {
  const scheme = String(protocol).toLowerCase()
  if (scheme === 'http' || scheme === 'https') return scheme
  throw new InvalidParameterError('headers/x-forwarded-proto must be http or https')
}

function hostOf({ host, headers }: FastifyRequest): string {
  const forwarded = headers['x-forwarded-host']
  // Fastify takes the last of several values from trusted senders: each proxy of a chain may add its own.
  const trusted = forwarded !== undefined && host === String(forwarded).split(',').at(-1)?.trim()
  if (host === '' && !trusted) return 'localhost'
  if (isHost(host)) return host
  throw new InvalidParameterError(
    `headers/${trusted ? 'x-forwarded-host' : 'host'} must be a host name or an address, with or without a port`
  )
}

function isHost(text: string): boolean {
  const [found, name, port = '80'] = HOST.exec(text) ?? []
  return found !== undefined && (!name || isName(name)) && Number(port) > 0 && URL.canParse(`http://${text}`)
}

function isName(text: string): boolean {
  const name = text.replace(/\.$/, '')
  return name.length <= MAX_NAME && name.split('.').every((label) => LABEL.test(label))
}
