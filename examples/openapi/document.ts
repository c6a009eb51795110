import swagger from '@fastify/swagger'
import Fastify from 'fastify'
import nano from 'nano'
import type { OpenAPIV3_1 } from 'openapi-types'
import dbBackups, { createMemoryWebhookStore } from '../../lib/index.js'
import { optionalBody } from './optional-body.js'

/** Returns the OpenAPI document of the plugin's routes. Needs no database. */
export async function openApiDocument(): Promise<OpenAPIV3_1.Document> {
  const app = Fastify()
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Database backups',
        description:
          'Backups and restores of the databases of a console. The routes of v1 and v2 are the same as those of v3.',
        version: 'v3',
        license: { name: 'MIT', identifier: 'MIT' }
      },
      tags: [
        { name: 'backups', description: 'Make, read and list backups' },
        { name: 'restores', description: 'Restore the databases from a backup' }
      ],
      components: {
        securitySchemes: {
          session: {
            type: 'apiKey',
            in: 'cookie',
            name: 'session',
            description: "The session cookie of a logged-in user. Its name is the host's."
          },
          apiKey: { type: 'http', scheme: 'basic', description: 'An API key and its secret' }
        }
      }
    },
    transformObject: optionalBody,
    refResolver: { buildLocalReference: (schema, _uri, _fragment, i) => String(schema.$id ?? `def-${i}`) }
  })
  await app.register(dbBackups, {
    couch: nano('http://127.0.0.1:5984'),
    databases: { components: 'athena_components', sessions: 'athena_sessions', system: 'athena_system' },
    webhooks: createMemoryWebhookStore(),
    securitySchemes: { session: 'session', 'api-key': 'apiKey' },
    authorize() {},
    rebuildWhitelist() {}
  })
  await app.ready()
  try {
    return app.swagger() as OpenAPIV3_1.Document
  } finally {
    await app.close()
  }
}
