import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance, FastifySchema } from 'fastify'
import { optionalBody } from '../openapi/optional-body.js'
import { COOKIE } from './access.js'

export const DOCS_PATH = '/documentation'

const EXAMPLE_TX = '9f86d081884c7d659a2feaa0c55ad015'

/** Maps the plugin's names of security schemes to those in the OpenAPI document. */
export const SECURITY_SCHEMES = { session: 'session-cookie', 'api-key': 'api-key' } as const

/** Groups of the operations in Swagger UI, one for each security scheme. */
const TAGS = { session: 'With a session', 'api-key': 'With an API key' } as const

interface Refusal {
  description: string
  example: { statusCode: number; code?: string; error?: string; message?: string; reason?: string }
}

const NO_TRANSACTION: Refusal = {
  description: 'No restore has this id',
  example: { statusCode: 404, error: 'not_found', reason: 'missing' }
}

const DATABASE_FAILED: Refusal = {
  description: 'The database did not answer, or refused',
  example: {
    statusCode: 502,
    code: 'DB_BACKUPS_DATABASE_ERROR',
    error: 'Bad Gateway',
    message: `GET /athena_system/${EXAMPLE_TX}: unreachable, the connection failed (ECONNREFUSED)`
  }
}

/** Descriptions of the console's own routes, for the OpenAPI document. */
const OWN_ROUTES: Record<string, FastifySchema> = {
  '/api/v3/auth/login': {
    operationId: 'logIn',
    summary: 'Log in',
    description: 'The browser keeps the cookie, and sends it with all other requests of this group.',
    security: [],
    response: {
      200: {
        description: 'Logged in',
        headers: {
          'Set-Cookie': { type: 'string', description: `The cookie \`${COOKIE}\` of a session of 8 hours` }
        },
        ...done()
      },
      ...refusals(
        {
          description: 'The body is not JSON, or has not both members',
          example: {
            statusCode: 400,
            code: 'FST_ERR_VALIDATION',
            error: 'Bad Request',
            message: "body must have required property 'password'"
          }
        },
        {
          description: 'The email or the password is wrong',
          example: { statusCode: 401, message: 'invalid login' }
        },
        {
          description: 'Another content type than JSON',
          example: {
            statusCode: 415,
            code: 'FST_ERR_CTP_INVALID_MEDIA_TYPE',
            error: 'Unsupported Media Type',
            message: 'Unsupported Media Type'
          }
        }
      )
    }
  },
  '/api/v3/auth/logout': {
    operationId: 'logOut',
    summary: 'Log out',
    security: [{ [SECURITY_SCHEMES.session]: [] }],
    response: { 200: { description: 'Logged out, or was not logged in', ...done() } }
  },
  '/api/v3/webhooks/txs/:tx': transactionRoute('session', NO_TRANSACTION, DATABASE_FAILED),
  '/ak/api/v3/webhooks/txs/:tx': transactionRoute(
    'api-key',
    {
      description: 'The key has no role that may read',
      example: {
        statusCode: 403,
        error: 'Forbidden',
        message: 'this needs the action blockchain.optools.view'
      }
    },
    NO_TRANSACTION,
    DATABASE_FAILED,
    {
      description: 'The database did not answer when the key was looked up',
      example: { statusCode: 503, error: 'Service Unavailable', message: 'the database is not reachable' }
    }
  )
}

function transactionRoute(scheme: keyof typeof SECURITY_SCHEMES, ...more: Refusal[]): FastifySchema {
  return {
    operationId: scheme === 'session' ? 'getTransactionInSession' : 'getTransaction',
    summary: 'Read the state of a restore',
    description: 'The reply to a restore names the transaction in its `url`.',
    params: {
      type: 'object',
      properties: { tx: { type: 'string', description: 'Id of the transaction', examples: [EXAMPLE_TX] } }
    },
    security: [{ [SECURITY_SCHEMES[scheme]]: [] }],
    response: {
      200: {
        description: 'The transaction',
        content: { 'application/json': { schema: { $ref: 'DbRestoreTransaction#' } } }
      },
      ...refusals(
        {
          description: scheme === 'session' ? 'No session, or an ended one' : 'No API key, or a wrong secret',
          example: { statusCode: 401, error: 'Unauthorized', message: 'unauthorized' }
        },
        ...more
      )
    }
  }
}

function refusals(...all: Refusal[]): Record<number, object> {
  const described = all.map(({ description, example }) => {
    const json = { schema: { $ref: 'DbBackupsError#' }, examples: { refusal: { value: example } } }
    return [example.statusCode, { description, content: { 'application/json': json } }]
  })
  return Object.fromEntries(described)
}

function done(): object {
  const schema = { type: 'object', properties: { message: { type: 'string', enum: ['ok'] } } }
  return { content: { 'application/json': { schema } } }
}

/** Describes a route of the console itself, and puts every described route into the group of its scheme. */
function describe({ schema, url }: { schema: FastifySchema; url: string }): {
  schema: FastifySchema
  url: string
} {
  const described = { ...schema, ...OWN_ROUTES[url] }
  const shown = url in OWN_ROUTES || schema?.tags
  const tag = url.startsWith('/ak/') ? TAGS['api-key'] : TAGS.session
  return { url, schema: shown ? { ...described, tags: [tag] } : described }
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
        { name: TAGS.session, description: 'The routes under /api, for browsers. Log in first.' },
        {
          name: TAGS['api-key'],
          description: 'The same routes under /ak/api, for programs. Press Authorize first.'
        }
      ],
      components: {
        securitySchemes: {
          [SECURITY_SCHEMES.session]: {
            type: 'apiKey',
            in: 'cookie',
            name: COOKIE,
            description:
              'The session of a user. Enter nothing here, since a browser sends no cookie that a page sets: use the operation "Log in".'
          },
          [SECURITY_SCHEMES['api-key']]: {
            type: 'http',
            scheme: 'basic',
            description:
              'An API key as the user name, and its secret as the password, as the server printed them'
          }
        }
      }
    },
    hideUntagged: true,
    transform: describe,
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
