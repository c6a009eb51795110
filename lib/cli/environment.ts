import { usageError } from './errors.js'

export interface Environment {
  /** Address of the server, without a slash at its end. */
  url: URL
  /** Address of the operator's routes, without a slash at its end. */
  operatorUrl: URL
  authorization: string
}

export const ENVIRONMENT_HELP = `Environment:
  BACKUPS_URL           address of the server: https://console.example.com
  BACKUPS_API_KEY       API key, with
  BACKUPS_API_SECRET    its secret; or
  BACKUPS_TOKEN         a bearer token in place of both
  BACKUPS_OPERATOR_URL  address of the operator's routes
                        (default: that of the server and /operator)
  NODE_EXTRA_CA_CERTS   file of certificates to trust besides Node's own`

/** @param operator value of the option `--operator` @throws CliError that names the variable or the option */
export function readEnvironment(env: NodeJS.ProcessEnv, operator?: string): Environment {
  const url = readUrl('BACKUPS_URL', env.BACKUPS_URL)
  const operatorUrl =
    operator === undefined
      ? readUrl('BACKUPS_OPERATOR_URL', env.BACKUPS_OPERATOR_URL || `${url.href.replace(/\/$/, '')}/operator`)
      : readUrl('--operator', operator)
  return { url, operatorUrl, authorization: readAuthorization(env) }
}

function readUrl(name: string, text: string | undefined): URL {
  if (!text) throw usageError(`${name} is not set: it is the address of the server`)
  if (!URL.canParse(text)) throw usageError(`${name} is not a URL`)
  const url = new URL(text)
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw usageError(`${name} must be http or https`)
  if (url.username || url.password) {
    throw usageError(`${name} must not hold credentials: set BACKUPS_API_KEY and BACKUPS_API_SECRET`)
  }
  if (url.search || url.hash) throw usageError(`${name} must not have a query or a fragment`)
  url.pathname = url.pathname.replace(/\/+$/, '')
  return url
}

function readAuthorization({
  BACKUPS_API_KEY: key,
  BACKUPS_API_SECRET: secret,
  BACKUPS_TOKEN: token
}: NodeJS.ProcessEnv): string {
  if (token && (key || secret))
    throw usageError('BACKUPS_TOKEN is set, and BACKUPS_API_KEY as well: set one of them')
  if (token) {
    if (!/^[\x21-\x7e]+$/.test(token)) throw usageError('BACKUPS_TOKEN is not a token')
    return `Bearer ${token}`
  }
  if (!key) throw usageError('BACKUPS_API_KEY is not set')
  if (!secret) throw usageError('BACKUPS_API_SECRET is not set')
  if (key.includes(':')) throw usageError('BACKUPS_API_KEY must not have a colon')
  return `Basic ${Buffer.from(`${key}:${secret}`).toString('base64')}`
}
