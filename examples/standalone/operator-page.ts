import { join } from 'node:path'
import helmet from '@fastify/helmet'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'

const FILES = join(__dirname, 'page')

/** Serves the operator page at `/`. Register it as a scope, which keeps its security headers off other routes. */
export async function operatorPage(app: FastifyInstance): Promise<void> {
  await app.register(helmet, {
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        'default-src': ["'none'"],
        'script-src': ["'self'"],
        'style-src': ["'self'"],
        'img-src': ["'self'"],
        'connect-src': ["'self'"],
        'form-action': ["'none'"],
        'frame-ancestors': ["'none'"],
        'base-uri': ["'none'"],
        'require-trusted-types-for': ["'script'"]
      }
    },
    frameguard: { action: 'deny' },
    // HSTS would bind the whole host to TLS, which this page must not decide
    hsts: false
  })
  // without a wildcard each file has a route of its own, and none can hide a route of the host
  await app.register(fastifyStatic, { root: FILES, wildcard: false, decorateReply: false })
}
