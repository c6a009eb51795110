import type { RequestHandler } from 'express'
import type { FastifyInstance } from 'fastify'
import type { WebhookStore } from '../../types/index.js'

export type Role = 'manager' | 'reader'
export type Scheme = 'session' | 'api-key'

/** Describes a refused or failed call. This host passes plain objects rather than instances of `Error`. */
export interface HostError {
  statusCode: number
  error: string
  reason?: string
}

export type Callback<T = void> = (
  ...args: [error: HostError, result: undefined] | [error: null, result: T]
) => void

export interface Document {
  _id: string
  _rev?: string
  type?: string
  [member: string]: unknown
}

/** Holds the host's start-up configuration and what its settings document says. */
export interface Environment {
  DB_CONNECTION_STRING: string
  DB_COMPONENTS: string
  DB_SESSIONS: string
  DB_SYSTEM: string
  /** Origin that clients reach the host at. */
  HOST_URL: string
  SESSION_SECRET: string
  SETTINGS_DOC_ID: string
  /** Milliseconds without traffic after which a connection is closed. */
  HTTP_TIMEOUT: number
  LOG_LEVEL: string
  /** Addresses of the proxies before the host, as Express' setting takes them. */
  TRUST_PROXY?: string
  ACCESS_LIST: Record<string, { uuid: string; roles: Role[]; salt: string; hashed_secret: string }>
  URL_SAFE_LIST: string[]
}

export interface CouchLib {
  getDoc(opts: { db_name: string; _id: string }, cb: Callback<Document>): void
  getAllDocs(opts: { db_name: string }, cb: Callback<Document[]>): void
  writeDoc(opts: { db_name: string }, doc: Document, cb: Callback<Document>): void
  deleteDoc(opts: { db_name: string; _id: string }, cb: Callback): void
  /** Reads, changes and writes a document. Tries again after a conflict. */
  repeatWriteSafe(
    opts: { db_name: string; _id: string },
    modify: (doc: Document) => Document,
    cb: Callback<Document>
  ): void
}

export interface Middleware {
  verify_settings_action_session: RequestHandler[]
  verify_settings_action_ak: RequestHandler[]
  verify_view_action_session: RequestHandler[]
  verify_view_action_ak: RequestHandler[]
  getEmail(req: Express.Request): string | undefined
  getUuid(req: Express.Request): string | undefined
}

/** Holds the libraries of the host, which they get to use each other. */
export interface Tools {
  couch_lib: CouchLib
  misc: {
    censorEmail(email: string | undefined): string
    salt_password(password: string): { salt: string; hashed_secret: string }
    verify_password(
      password: string,
      known: { salt: string; hashed_secret: string } | undefined,
      cb: (valid: boolean) => void
    ): void
    hash_api_secret(secret: string): string
    verify_api_secret(secret: string, hashed_secret: string): boolean
  }
  middleware: Middleware
  webhook: {
    store: WebhookStore
    get_webhook(tx_id: string, cb: Callback<object>): void
  }
  backups: {
    fastify: FastifyInstance
    hand_over_files: RequestHandler
    hand_over(scheme: Scheme): RequestHandler
  }
  component_lib: { rebuildWhiteList(req: object, cb: Callback<string[]>): void }
  /** Sends a message to all connected browsers. */
  broadcast(message: object): void
}

declare global {
  namespace Express {
    interface Request {
      /** Actions that the route requires, set by its middleware. */
      actions?: string[]
      /** Id of the API key that a request came with. */
      using_api_key?: string
    }
  }
}

declare module 'express-session' {
  interface SessionData {
    couchdb_profile: { email: string; uuid: string }
  }
}
