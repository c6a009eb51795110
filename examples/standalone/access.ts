import { createHash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { FastifyRequest } from 'fastify'
import type { DocumentScope } from 'nano'
import type { Requester } from '../../types/index.js'

export type Action = 'blockchain.optools.settings' | 'blockchain.optools.view'
export type Role = 'manager' | 'reader'

export const SETTINGS_ID = '00_settings_athena'
export const COOKIE = 'console_session'
const KEY_PREFIX = 'api_key_'
const SESSION_MS = 8 * 3600 * 1000

const ACTIONS: Record<Role, readonly Action[]> = {
  manager: ['blockchain.optools.settings', 'blockchain.optools.view'],
  reader: ['blockchain.optools.view']
}

/** A user in the settings document's `access_list`, under the email. */
interface User {
  uuid: string
  roles: Role[]
  /** Absent for a user that came with a restored backup. */
  password?: { salt: string; hash: string }
}

export interface Settings {
  _id: string
  _rev?: string
  type: string
  access_list: Record<string, User>
  white_list: string[]
}

interface ApiKey {
  _id: string
  _rev?: string
  type: 'api_key_doc'
  description: string
  roles: Role[]
  /** SHA-256 of the secret. A fast hash is enough, since the secret has 256 random bits. */
  hash: string
  demo: boolean
  ts_created: number
}

interface Identity extends Requester {
  roles: Role[]
}

export interface Credentials {
  key: string
  secret: string
}

const derive = promisify(scrypt) as (password: string, salt: string, length: number) => Promise<Buffer>
const sha256 = (text: string) => createHash('sha256').update(text).digest('hex')
const random = (bytes: number) => randomBytes(bytes).toString('base64url')

function equalHashes(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a), Buffer.from(b)]
  return left.length === right.length && timingSafeEqual(left, right)
}

const statusOf = (error: unknown) => (error as { statusCode?: number }).statusCode

function refusal(statusCode: 401 | 403, message: string): Error {
  return Object.assign(new Error(message), { statusCode })
}

/** Authorizes requests by API keys and users in the console's system database, and by sessions of this process. */
export class Access {
  readonly #system: DocumentScope<unknown>
  readonly #sessions = new Map<string, Identity & { expires: number }>()

  constructor(system: DocumentScope<unknown>) {
    this.#system = system
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
  async login(email: string, password: string): Promise<string | undefined> {
    const settings = await this.#read<Settings>(SETTINGS_ID)
    const users = settings?.access_list ?? {}
    const user = Object.hasOwn(users, email) ? users[email] : undefined
    // derive a key for an unknown user as well, so that response times do not reveal which emails exist
    const hash = (await derive(password, user?.password?.salt ?? '', 32)).toString('hex')
    if (!user?.password || !equalHashes(hash, user.password.hash)) return
    const now = Date.now()
    for (const [token, session] of this.#sessions) if (session.expires < now) this.#sessions.delete(token)
    const token = random(32)
    this.#sessions.set(token, {
      name: email,
      uuid: user.uuid,
      roles: user.roles,
      expires: now + SESSION_MS
    })
    return token
  }

  logout(request: FastifyRequest): void {
    this.#sessions.delete(cookie(request) ?? '')
  }

  /** Creates an API key for each role and deletes those of earlier runs: only hashes of their secrets are stored. */
  async createDemoKeys(): Promise<Record<Role, Credentials>> {
    const rows = await this.#system.list({
      startkey: KEY_PREFIX,
      endkey: `${KEY_PREFIX}\ufff0`,
      include_docs: true
    })
    for (const { doc } of rows.rows) {
      const key = doc as ApiKey | undefined
      if (key?._rev && key.demo) await this.#system.destroy(key._id, key._rev)
    }
    return { manager: await this.#createKey('manager'), reader: await this.#createKey('reader') }
  }

  /** Gives the seeded users new passwords, since only hashes of the earlier ones are stored. */
  async resetDemoPasswords(emails: Record<string, Role>): Promise<Record<string, string>> {
    const settings = await this.#read<Settings>(SETTINGS_ID)
    if (!settings) return {}
    settings.access_list ??= {}
    const passwords: Record<string, string> = {}
    for (const [email, role] of Object.entries(emails)) {
      const password = random(9)
      const salt = random(16)
      const hash = (await derive(password, salt, 32)).toString('hex')
      const uuid = settings.access_list[email]?.uuid ?? random(12)
      settings.access_list[email] = { uuid, roles: [role], password: { salt, hash } }
      passwords[email] = password
    }
    await this.#system.insert(settings)
    return passwords
  }

  async #createKey(role: Role): Promise<Credentials> {
    const credentials = { key: random(9), secret: random(32) }
    const document: ApiKey = {
      _id: KEY_PREFIX + credentials.key,
      type: 'api_key_doc',
      description: `demo key, ${role}`,
      roles: [role],
      hash: sha256(credentials.secret),
      demo: true,
      ts_created: Date.now()
    }
    await this.#system.insert(document)
    return credentials
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
