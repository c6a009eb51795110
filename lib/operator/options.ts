import type { FastifyReply, FastifyRequest, RegisterOptions } from 'fastify'
import type { Authorize } from '../../types/options.js'

/** Protects the routes that change something from requests that pages of other sites make browsers send. */
export interface CsrfProtection {
  /**
   * Refuses a request by throwing an error with a `statusCode`, by returning `false` (403), or by replying itself. Runs
   * after `authorize`, before anything of the body is read.
   */
  check: (request: FastifyRequest, reply: FastifyReply) => unknown
  /** Returns a token that the page is told, and sends as `x-csrf-token`. */
  token?: (request: FastifyRequest, reply: FastifyReply) => string | Promise<string>
}

/** How people sign in to the host. */
export interface SignInOptions {
  /** A page of the host, to which the operator page sends those who have no session. */
  url?: string
  /**
   * A route of the host that takes `{ email, password }` as JSON in a POST, and sets the session. With it, the operator
   * page has a form of its own. `password` names the member where it has another name.
   */
  login?: { path: string; password?: string }
  /** A route of the host that ends the session. Default of `method`: `POST`. */
  logout?: { path: string; method?: 'GET' | 'POST' }
}

/** Options of the operator plugin. */
export interface OperatorOptions extends RegisterOptions {
  /**
   * Decides whether a request may be served, as the option of the same name of the backups plugin. `scheme` is `api-key`
   * for requests with an `Authorization` header, else `session`. It is asked for everything but the page's files.
   */
  authorize: Authorize
  /** Default: {@link requireSameSite}. */
  csrf?: CsrfProtection
  /**
   * Path of the six routes for sessions, where the page downloads and appends and sends a file to be restored.
   * Default `/api/v3/backups`.
   */
  backupsPath?: string
  /** Name of the application, at the top of the page. Default `Console`. */
  title?: string
  /** Default: the page only says that a session is needed. */
  signIn?: SignInOptions
  /** Milliseconds for each call of `authorize` and of `csrf`. Default 10 000. */
  timeout?: number
}

/** The options, each with its value. */
export interface ResolvedOperatorOptions {
  authorize: Authorize
  csrf: CsrfProtection
  backupsPath: string
  title: string
  signIn: SignInOptions
  timeouts: { authorize: number }
}

const KNOWN = [
  'authorize',
  'csrf',
  'backupsPath',
  'title',
  'signIn',
  'timeout',
  'prefix',
  'logLevel',
  'logSerializers'
]

/** Checks the options. @throws TypeError that names the one that is missing or wrong */
export function resolveOperatorOptions(
  given: OperatorOptions,
  defaultCsrf: CsrfProtection
): ResolvedOperatorOptions {
  const unknown = Object.keys(given).find((name) => !KNOWN.includes(name))
  if (unknown !== undefined) throw wrong(unknown, 'is not known')
  const { authorize, csrf = defaultCsrf, backupsPath = '/api/v3/backups', title = 'Console' } = given
  const { signIn = {}, timeout = 10_000 } = given
  if (typeof authorize !== 'function') throw wrong('authorize', 'must be a function')
  if (typeof csrf?.check !== 'function') throw wrong('csrf.check', 'must be a function')
  if (csrf.token !== undefined && typeof csrf.token !== 'function')
    throw wrong('csrf.token', 'must be a function')
  checkPath('backupsPath', backupsPath)
  if (typeof title !== 'string') throw wrong('title', 'must be a string')
  if (!Number.isInteger(timeout) || timeout < 1) throw wrong('timeout', 'must be a number of milliseconds')
  if (signIn.url !== undefined && !isLink(signIn.url))
    throw wrong('signIn.url', 'must be a path, or an http(s) URL')
  if (signIn.login) checkPath('signIn.login.path', signIn.login.path)
  if (signIn.logout) checkPath('signIn.logout.path', signIn.logout.path)
  return { authorize, csrf, backupsPath, title, signIn, timeouts: { authorize: timeout } }
}

/** The page sends requests with credentials there: only to the host itself. */
function checkPath(option: string, path: unknown): void {
  if (typeof path !== 'string' || !/^\/(?!\/)[\w\-./~%]*$/.test(path))
    throw wrong(option, 'must be a path that begins with one slash')
}

/** Returns whether a link can be followed without running a script. */
const isLink = (url: unknown) => typeof url === 'string' && /^(https?:\/\/|\/(?!\/))/.test(url)

const wrong = (option: string, problem: string) => new TypeError(`option "${option}" ${problem}`)
