import { CliError, ConnectionError } from './errors.js'

/** Failures before anything of a request has reached the server. */
const UNSENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT'
])

const REASONS: Record<string, (host: string) => string> = {
  ECONNREFUSED: (host) => `no server answers at ${host}; does it run, and is BACKUPS_URL right?`,
  ENOTFOUND: (host) => `the name ${host} is not known; is BACKUPS_URL right?`,
  EAI_AGAIN: (host) => `the name ${host} could not be looked up`,
  EHOSTUNREACH: (host) => `there is no way to ${host}`,
  ENETUNREACH: (host) => `there is no way to ${host}`,
  ETIMEDOUT: (host) => `${host} does not answer`,
  ECONNRESET: (host) => `${host} has closed the connection`,
  EPIPE: (host) => `${host} has closed the connection`,
  UND_ERR_SOCKET: (host) => `${host} has closed the connection`,
  EPROTO: (host) => `${host} does not speak https; is BACKUPS_URL right?`,
  ERR_SSL_WRONG_VERSION_NUMBER: (host) => `${host} does not speak https; is BACKUPS_URL right?`,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: (host) => `${host} does not speak https; is BACKUPS_URL right?`
}

const CERTIFICATES: Record<string, string> = {
  CERT_HAS_EXPIRED: 'it has expired',
  CERT_NOT_YET_VALID: 'it is not valid yet',
  CERT_REVOKED: 'it was revoked',
  ERR_TLS_CERT_ALTNAME_INVALID: 'it is of another host',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'it is signed by itself',
  SELF_SIGNED_CERT_IN_CHAIN: 'its issuer is signed by itself'
}

/** Returns the error that a failed connection to `host` ends a call with: plain words in place of a library's. */
export function connectionError(error: NodeJS.ErrnoException, host: string, timeout: number): Error {
  if (error.name === 'AbortError' || error instanceof CliError) return error
  const { code = '' } = error
  if (/CERT|SELF_SIGNED|UNABLE_TO|ERR_TLS/.test(code)) {
    const reason = CERTIFICATES[code] ?? 'its issuer is not known'
    return new CliError(`the certificate of ${host} is not trusted: ${reason}; see NODE_EXTRA_CA_CERTS`)
  }
  return new ConnectionError(`the connection failed: ${reasonOf(code, host, timeout)}`, UNSENT.has(code))
}

function reasonOf(code: string, host: string, timeout: number): string {
  if (/^UND_ERR_.*_TIMEOUT$/.test(code)) return `nothing came for ${timeout / 1000} s`
  if (code.startsWith('HPE_')) return `what answers at ${host} does not speak http; is BACKUPS_URL right?`
  return REASONS[code]?.(host) ?? `it broke${code && ` (${code})`}`
}
