import { join } from 'node:path'
import helmet from '@fastify/helmet'
import fastifyStatic from '@fastify/static'
import type { FastifyInstance } from 'fastify'

const FILES = join(__dirname, 'page')

/** Serves the operator page at `/`. Its headers are its own: the scope keeps them off every other route. */
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
    // whether a host is reached by TLS only is not the page's to promise
    hsts: false
  })
  // without a wildcard there is a route for each file, and none that could hide the host's
  await app.register(fastifyStatic, { root: FILES, wildcard: false, decorateReply: false })
}
