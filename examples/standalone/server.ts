import Fastify, { type FastifyInstance } from 'fastify'
import type { ServerScope } from 'nano'
import dbBackups, { createCouchWebhookStore } from '../../lib/index.js'
import operator from '../../lib/operator/index.js'
import type {
  BackupsOptions,
  DatabaseNames,
  KeepRules,
  ScheduleOptions,
  WebhookStore
} from '../../types/index.js'
import { type Access, COOKIE, SETTINGS_ID, type Settings } from './access.js'
import { registerApiDocs, SECURITY_SCHEMES } from './api-docs.js'
import { PASSWORD_LENGTH } from './credentials.js'

export interface ConsoleOptions {
  couch: ServerScope
  names: DatabaseNames
  access: Access
  publicUrl?: string
  /** When backups are made without a request. Default: never. */
  schedule?: ScheduleOptions
  /** The place of the backups, when they have a server of their own. */
  backups?: BackupsOptions
}

/** The backups that pruning keeps. */
const KEEP: KeepRules = { daily: 7, weekly: 4, monthly: 12 }

const VERSIONS = ['v1', 'v2', 'v3']

const LOGIN_BODY = {
  type: 'object',
  required: ['email', 'password'],
  additionalProperties: false,
  properties: {
    email: { type: 'string', maxLength: 254, examples: ['admin@example.com'] },
    password: { type: 'string', maxLength: PASSWORD_LENGTH, description: 'As the server printed it' }
  }
}

/** Builds a small console: logins, transactions, the backup APIs and an operator page. */
export async function buildConsole({
  couch,
  names,
  access,
  publicUrl,
  schedule,
  backups
}: ConsoleOptions): Promise<FastifyInstance> {
  const app = Fastify({ logger: { level: process.env.LOG_LEVEL ?? 'warn' } })
  const webhooks = createCouchWebhookStore({ couch, database: names.system })
  await registerApiDocs(app)
  addLogin(app, access)

  await app.register(dbBackups, {
    couch,
    databases: names,
    backups,
    authorize: (request, context) => access.authorize(request, context),
    webhooks,
    rebuildWhitelist: () => rebuildWhitelist(couch, names),
    versions: { tag: 'example' },
    publicUrl,
    schedule,
    keep: KEEP,
    securitySchemes: SECURITY_SCHEMES
  })
  await app.register(operator, {
    prefix: '/operator',
    authorize: (request, context) => access.authorize(request, context),
    csrf: { check: (request) => access.refuseForged(request) },
    backupsPath: '/api/v2/backups',
    signIn: { login: { path: '/api/v2/auth/login' }, logout: { path: '/api/v2/auth/logout' } }
  })
  app.get('/', { schema: { hide: true } }, async (_request, reply) => reply.redirect('/operator/'))

  addTransactions(app, access, webhooks)
  return app
}

/** Adds the routes that begin and end sessions. */
function addLogin(app: FastifyInstance, access: Access): void {
  for (const version of VERSIONS) {
    app.post<{ Body: { email: string; password: string } }>(
      `/api/${version}/auth/login`,
      { schema: { body: LOGIN_BODY } },
      async (request, reply) => {
        const token = access.login(request.body.email, request.body.password)
        if (!token) return reply.code(401).send({ statusCode: 401, message: 'invalid login' })
        reply.header('set-cookie', `${COOKIE}=${token}; Path=/; HttpOnly; SameSite=Strict`)
        return { message: 'ok' }
      }
    )
    app.post(`/api/${version}/auth/logout`, async (request, reply) => {
      access.logout(request)
      reply.header('set-cookie', `${COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0`)
      return { message: 'ok' }
    })
  }
}

/** Adds the routes by which clients follow a restore. */
function addTransactions(app: FastifyInstance, access: Access, webhooks: WebhookStore): void {
  for (const [prefix, scheme] of [
    ['/api', 'session'],
    ['/ak/api', 'api-key']
  ] as const) {
    for (const version of VERSIONS) {
      app.get<{ Params: { tx: string } }>(
        `${prefix}/${version}/webhooks/txs/:tx`,
        {
          onRequest: async (request) => {
            await access.authorize(request, { action: 'blockchain.optools.view', scheme })
          }
        },
        async (request, reply) => {
          const transaction = await webhooks.get(request.params.tx)
          if (!transaction) {
            return reply.code(404).send({ statusCode: 404, error: 'not_found', reason: 'missing' })
          }
          // the client's webhook may contain secrets
          const { client_webhook_url: _url, ...shown } = transaction
          return { ...shown, _id: undefined, _rev: undefined }
        }
      )
    }
  }
}

/** Rebuilds the white list from the addresses of the components. */
async function rebuildWhitelist(couch: ServerScope, names: DatabaseNames): Promise<void> {
  const { rows } = await couch.use(names.components).list({ include_docs: true })
  const origins = new Set<string>()
  for (const { doc } of rows) {
    for (const [key, value] of Object.entries(doc ?? {})) {
      if (!key.endsWith('_url') || typeof value !== 'string' || !URL.canParse(value)) continue
      const { protocol, host } = new URL(value)
      origins.add(`${protocol}//${host}`)
    }
  }
  const system = couch.use<Settings>(names.system)
  for (let attempt = 1; ; attempt++) {
    const settings = await system.get(SETTINGS_ID)
    try {
      await system.insert({ ...settings, white_list: [...origins].sort() })
      return
    } catch (error) {
      if ((error as { statusCode?: number }).statusCode !== 409 || attempt === 5) throw error
    }
  }
}
