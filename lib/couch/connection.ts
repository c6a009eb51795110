import type { ServerScope } from 'nano'
import type { Dispatcher } from 'undici'

/** Where and as whom to talk to CouchDB. */
export interface Connection {
  origin: string
  /** Path of the server below its origin, without a slash at its end. */
  basePath: string
  headers: Record<string, string>
  /** The host's own dispatcher, when its nano has one. */
  dispatcher: Dispatcher | undefined
}

/** What nano 11 keeps in `config` beyond what its types tell. */
interface NanoConfig {
  url: string
  plainURL?: string
  cookie?: string
  headers?: Record<string, string>
  agent?: unknown
  cookieJar?: { getCookieString(url: string): string | undefined }
}

/**
 * Reads the connection of the host's nano, asking for it anew where it is a function.
 * @throws TypeError when there is none, and what the host's function throws
 */
export function connectionTo(couch: ServerScope | (() => ServerScope)): Connection {
  try {
    return connectionOf(typeof couch === 'function' ? couch() : couch)
  } catch (error) {
    // Node.js' own error holds the URL, with the password in it.
    if ((error as NodeJS.ErrnoException).code === 'ERR_INVALID_URL')
      throw new TypeError("the database's URL is not a URL")
    throw error
  }
}

/**
 * Reads the connection out of a nano server scope: address, credentials (of the URL, of `headers`, or the session
 * cookie of `nano.auth()`), extra headers and dispatcher.
 *
 * @throws TypeError when it is not a nano server scope.
 */
export function connectionOf(couch: ServerScope): Connection {
  const config = couch?.config as unknown as NanoConfig | undefined
  if (!config || typeof config.url !== 'string') {
    throw new TypeError('couch must be a nano server scope, or a function that returns one')
  }
  const url = new URL(config.url)
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(config.headers ?? {}))
    headers[name.toLowerCase()] = String(value)
  if (!headers.authorization && url.username) {
    const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
    headers.authorization = `Basic ${Buffer.from(credentials).toString('base64')}`
  }
  const cookies = [config.cookie, config.cookieJar?.getCookieString(config.plainURL ?? url.origin)]
  const cookie = cookies.filter(Boolean).join('; ')
  if (cookie) headers.cookie = cookie
  delete headers['content-type']
  delete headers.accept
  const agent = config.agent as Dispatcher | undefined
  return {
    origin: url.origin,
    basePath: url.pathname.replace(/\/+$/, ''),
    headers,
    dispatcher: typeof agent?.request === 'function' ? agent : undefined
  }
}
