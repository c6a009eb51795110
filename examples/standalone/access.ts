import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { DocumentScope } from 'nano'
import type { Requester } from '../../types/index.js'
import { nameOf, type Role } from './credentials.js'

export type Action = 'blockchain.optools.settings' | 'blockchain.optools.view'

export const SETTINGS_ID = '00_settings_athena'
export const COOKIE = 'console_session'
const KEY_PREFIX = 'api_key_'
const SESSION_MS = 8 * 3600 * 1000

const ACTIONS: Record<Role, readonly Action[]> = {
  manager: ['blockchain.optools.settings', 'blockchain.optools.view'],
  reader: ['blockchain.optools.view']
}

/** The users, by email. The settings document lists them too, but a restore may replace that. */
export const USERS: Record<string, { uuid: string; role: Role }> = {
  'admin@example.com': { uuid: '4be2a9d0-6a5e-4c57-9d8e-1f0c2b7a3e11', role: 'manager' },
  'reader@example.com': { uuid: 'c81f5d36-0f3b-4a9c-8a44-5b9e7d2f6c02', role: 'reader' }
}

export interface Settings {
  _id: string
  _rev?: string
  type: string
  access_list: Record<string, { uuid: string; roles: Role[] }>
  white_list: string[]
}

interface ApiKey {
  _id: string
  _rev?: string
  type: 'api_key_doc'
  description: string
  roles: Role[]
  /** SHA-256 of the secret. A fast hash is enough for a secret that is long and random. */
  hash: string
  demo: boolean
  ts_created: number
}

interface Identity extends Requester {
  roles: Role[]
}

const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')

function equalHashes(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

const statusOf = (error: unknown) => (error as { statusCode?: number }).statusCode

function refusal(statusCode: 401 | 403, message: string): Error {
  return Object.assign(new Error(message), { statusCode })
}

/**
 * Authorizes requests by API keys in the console's system database, and by sessions of this process. No restore writes
 * the passwords, so users can log in before the first restore, and after each.
 */
export class Access {
  readonly #system: DocumentScope<unknown>
  readonly #passwords: Partial<Record<Role, string>>
  readonly #sessions = new Map<string, Identity & { expires: number }>()

  constructor(system: DocumentScope<unknown>, passwords: Partial<Record<Role, string>> = {}) {
    this.#system = system
    this.#passwords = passwords
  }

  /**
   * Returns who sent a request.
   * @throws an error with status 401 without a valid identity, 403 when no role of it includes the action
   */
  async authorize(
    request: FastifyRequest,
    { action, scheme }: { action: Action; scheme: 'session' | 'api-key' }
  ): Promise<Requester> {
    if (scheme === 'session') this.refuseForged(request)
    const identity = scheme === 'session' ? this.#fromSession(request) : await this.#fromApiKey(request)
    if (!identity) throw refusal(401, 'unauthorized')
    if (!identity.roles.some((role) => ACTIONS[role]?.includes(action))) {
      throw refusal(403, `this needs the action ${action}`)
    }
    return { name: identity.name, uuid: identity.uuid }
  }

  /** @throws an error with status 403 when a page of another origin made the browser send a request */
  refuseForged(request: FastifyRequest): void {
    if (isForged(request)) throw refusal(403, 'cross-site requests are refused')
  }

  /**
   * Opens a session.
   * @returns its token, or `undefined` when the email or the password is wrong
   */
  login(email: string, password: string): string | undefined {
    const user = Object.hasOwn(USERS, email) ? USERS[email] : undefined
    const expected = user && this.#passwords[user.role]
    if (!user || !expected || !equalHashes(sha256(password), sha256(expected))) return
    const now = Date.now()
    for (const [token, session] of this.#sessions) if (session.expires < now) this.#sessions.delete(token)
    const token = randomBytes(32).toString('base64url')
    this.#sessions.set(token, { name: email, uuid: user.uuid, roles: [user.role], expires: now + SESSION_MS })
    return token
  }

  logout(request: FastifyRequest): void {
    this.#sessions.delete(cookie(request) ?? '')
  }

  /**
   * Stores the API key of each role, and deletes other demo keys: those that were replaced, and those that came with a
   * backup.
   * @param keys of each role, `key:secret`
   */
  async storeKeys(keys: Record<Role, string>): Promise<void> {
    const wanted = new Map((['manager', 'reader'] as const).map((role) => [idOf(keys[role]), role]))
    const { rows } = await this.#system.list({
      startkey: KEY_PREFIX,
      endkey: `${KEY_PREFIX}\ufff0`,
      include_docs: true
    })
    const stored = new Map(rows.map(({ id, doc }) => [id, doc as ApiKey | undefined]))
    for (const [id, key] of stored) {
      if (key?._rev && key.demo && !wanted.has(id)) await this.#system.destroy(id, key._rev)
    }
    for (const [id, role] of wanted) {
      const former = stored.get(id)
      const hash = sha256(keys[role].slice(keys[role].indexOf(':') + 1))
      // a start that changes nothing writes nothing
      if (former?.hash === hash && former.roles[0] === role) continue
      const document: ApiKey = {
        _id: id,
        _rev: former?._rev,
        type: 'api_key_doc',
        description: `demo key, ${role}`,
        roles: [role],
        hash,
        demo: true,
        ts_created: Date.now()
      }
      await this.#system.insert(document)
    }
  }

  #fromSession(request: FastifyRequest): Identity | undefined {
    const session = this.#sessions.get(cookie(request) ?? '')
    return session && session.expires > Date.now() ? session : undefined
  }

  async #fromApiKey(request: FastifyRequest): Promise<Identity | undefined> {
    const basic = /^Basic ([\w+/=-]+)$/i.exec(request.headers.authorization ?? '')?.[1]
    const [, key, secret] = /^([\w-]+):(.*)$/.exec(Buffer.from(basic ?? '', 'base64').toString()) ?? []
    if (!key || !secret) return
    const document = await this.#read<ApiKey>(KEY_PREFIX + key)
    if (document?.type !== 'api_key_doc' || !equalHashes(sha256(secret), document.hash)) return
    return { name: document.description, uuid: key, roles: document.roles }
  }

  async #read<T>(id: string): Promise<T | undefined> {
    try {
      return (await this.#system.get(id)) as T
    } catch (error) {
      if (statusOf(error) === 404) return
      throw Object.assign(new Error('the database is not reachable'), { statusCode: 503 })
    }
  }
}

/** Returns the id of the document of a key. */
function idOf(key: string): string {
  return KEY_PREFIX + nameOf(key)
}

/**
 * Tells whether a page of another origin made the browser send the request. The cookie's `SameSite` is not enough: it
 * admits pages on other ports of this host and on sibling domains.
 */
function isForged({ method, headers }: FastifyRequest): boolean {
  const site = headers['sec-fetch-site'] ?? 'same-origin'
  return method !== 'GET' && site !== 'same-origin' && site !== 'none'
}

function cookie(request: FastifyRequest): string | undefined {
  for (const pair of (request.headers.cookie ?? '').split(';')) {
    const [name, value] = pair.trim().split('=')
    if (name === COOKIE) return value
  }
}
