import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifySchema } from 'fastify'
import { optionalBody } from '../openapi/optional-body.js'
import { COOKIE } from './access.js'

export const DOCS_PATH = '/documentation'

/** Maps the plugin's names of security schemes to those in the OpenAPI document. */
export const SECURITY_SCHEMES = { session: 'session', 'api-key': 'apiKey' } as const

/** Describes the console's own routes for the OpenAPI document. */
const OWN_ROUTES: Record<string, FastifySchema> = {
  '/api/v3/auth/login': {
    operationId: 'logIn',
    summary: 'Log in',
    tags: ['sessions'],
    security: [],
    response: { 200: { description: 'The reply sets the session cookie', type: 'object', properties: {} } }
  },
  '/api/v3/auth/logout': {
    operationId: 'logOut',
    summary: 'Log out',
    tags: ['sessions'],
    security: [{ [SECURITY_SCHEMES.session]: [] }],
    response: { 200: { description: 'Logged out', type: 'object', properties: {} } }
  },
  '/ak/api/v1/webhooks/txs/:tx': {
    operationId: 'getTransaction',
    summary: 'Read the state of a restore',
    tags: ['restores'],
    security: [{ [SECURITY_SCHEMES['api-key']]: [] }],
    response: {
      200: {
        description: 'The transaction',
        content: { 'application/json': { schema: { $ref: 'DbRestoreTransaction#' } } }
      }
    }
  }
}

/** Serves the OpenAPI document and Swagger UI. Must be called before routes are registered. */
export async function registerApiDocs(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Console',
        description: 'The routes of v1 and v2 are the same as those of v3.',
        version: 'v3'
      },
      tags: [
        { name: 'backups', description: 'Make, read and list backups' },
        { name: 'restores', description: 'Restore the databases from a backup' },
        { name: 'sessions', description: 'Log in to use the routes under /api' }
      ],
      components: {
        securitySchemes: {
          [SECURITY_SCHEMES.session]: { type: 'apiKey', in: 'cookie', name: COOKIE },
          [SECURITY_SCHEMES['api-key']]: { type: 'http', scheme: 'basic', description: 'Key and secret' }
        }
      }
    },
    hideUntagged: true,
    transform: ({ schema, url }) => ({ url, schema: { ...schema, ...OWN_ROUTES[url] } }),
    transformObject: optionalBody,
    refResolver: { buildLocalReference: (schema, _uri, _fragment, i) => String(schema.$id ?? `def-${i}`) }
  })
  await app.register(swaggerUi, {
    routePrefix: DOCS_PATH,
    uiConfig: { validatorUrl: null },
    staticCSP: {
      'default-src': "'none'",
      'script-src': "'self'",
      'style-src': ["'self'", "'unsafe-inline'"],
      'img-src': ["'self'", 'data:'],
      'connect-src': "'self'",
      'base-uri': "'none'",
      'form-action': "'none'",
      'frame-ancestors': "'none'"
    }
  })
}
