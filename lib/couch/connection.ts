import type { ServerScope } from 'nano'
import type { Dispatcher } from 'undici'
import { cutText, MOST } from '../bytes/cut-text.js'
import { HostValueError } from '../errors.js'
import { isPromise, nowOf } from '../waits/host-code.js'

/** Address, credentials and settings of a CouchDB server. */
export interface Connection {
  origin: string
  /** Path of the server below its origin, without a slash at its end. */
  basePath: string
  headers: Record<string, string>
  /** The host's own dispatcher, when its nano has one. */
  dispatcher: Dispatcher | undefined
  /** Gives cookies that the server has set, a renewed session above all, back to the host's nano. */
  renew?(setCookie: string | string[] | undefined): void
}

/** Members of nano 11's `config` that its types omit. */
interface NanoConfig {
  url: string
  /** The database, in the scope of one. */
  db?: unknown
  plainURL?: string
  cookie?: string
  headers?: Record<string, string>
  agent?: unknown
  requestDefaults?: object
  cookieJar?: {
    getCookieString(url: string): string | undefined
    parse?(setCookie: string, url: string): void
  }
}

/** The host's nano, or what returns it. */
export type Couch = ServerScope | (() => ServerScope)

/** Checks the option `couch`, unless its function has nothing to give yet. @throws TypeError */
export function checkCouch(couch: Couch): void {
  const given = typeof couch === 'function' ? nowOf(couch) : (couch ?? null)
  const problem = given === undefined ? undefined : problemOf(given)
  if (problem)
    throw new TypeError(`must be a nano server scope, or a function that returns one: it gives ${problem}`)
}

/** Tells why something cannot be used as a scope of nano. */
function problemOf(scope: unknown): string | undefined {
  if (isPromise(scope)) return 'a promise, where the scope must be there at once'
  const config = (scope as { config?: NanoConfig } | null | undefined)?.config
  if (typeof config?.url !== 'string') return 'none'
  if (config.db !== undefined) {
    const name = cutText(String(config.db), MOST.name)
    return `the scope of the database "${name}". Leave out use(); for a server below a path, call nano({ url, parseUrl: false })`
  }
  if (Object.keys(config.requestDefaults ?? {}).length > 0) {
    return 'one with requestDefaults, which nano 11 ignores. Use nano({ url, headers, agentOptions }), with a dispatcher of undici as agentOptions'
  }
  if (config.agent !== undefined && !isDispatcher(config.agent)) {
    return 'one whose agentOptions is no dispatcher of undici, such as new Agent({ connect: { ca } })'
  }
  return undefined
}

const isDispatcher = (agent: unknown): agent is Dispatcher =>
  typeof (agent as Dispatcher | undefined)?.request === 'function'

/** Reads the connection of the host's nano anew. @throws HostValueError, or what its function throws */
export function connectionTo(couch: Couch, option = 'couch'): Connection {
  try {
    return connectionOf(typeof couch === 'function' ? couch() : couch, option)
  } catch (error) {
    // Node.js' own error holds the URL, with the password in it.
    if ((error as NodeJS.ErrnoException).code === 'ERR_INVALID_URL')
      throw new HostValueError(option, "what cannot be used: the database's URL is not a URL")
    throw error
  }
}

/** Reads address, credentials, headers and dispatcher of nano's server scope. @throws HostValueError */
export function connectionOf(couch: ServerScope, option = 'couch'): Connection {
  const problem = problemOf(couch)
  if (problem) throw new HostValueError(option, problem === 'none' ? 'no nano server scope' : problem)
  const config = couch.config as unknown as NanoConfig
  const url = new URL(config.url)
  const headers: Record<string, string> = {}
  for (const [name, value] of Object.entries(config.headers ?? {}))
    headers[name.toLowerCase()] = String(value)
  if (!headers.authorization && url.username) {
    const credentials = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`
    headers.authorization = `Basic ${Buffer.from(credentials).toString('base64')}`
  }
  const cookieUrl = config.plainURL ?? url.origin
  // As in nano, a renewed session replaces the one that it began with.
  const cookie = config.cookieJar?.getCookieString(cookieUrl) || config.cookie
  if (cookie) headers.cookie = cookie
  delete headers['content-type']
  delete headers.accept
  return {
    origin: url.origin,
    basePath: url.pathname.replace(/\/+$/, ''),
    headers,
    dispatcher: isDispatcher(config.agent) ? config.agent : undefined,
    renew(setCookie = []) {
      for (const text of [setCookie].flat()) if (expires(text)) config.cookieJar?.parse?.(text, cookieUrl)
    }
  }
}

/** Returns whether a cookie says when it ends: nano's jar neither sends nor drops one that does not. */
function expires(setCookie: string): boolean {
  const [, date] = /;\s*expires=([^;]+)/i.exec(setCookie) ?? []
  return date !== undefined && !Number.isNaN(Date.parse(date))
}
