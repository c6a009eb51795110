import type { FastifyReply, FastifyRequest } from 'fastify'
import { CrossSiteError, ForbiddenError } from '../errors.js'
import { authorizer, unlessReplied } from '../routes/authorize.js'
import type { Ask } from '../routes/context.js'
import type { CsrfProtection, ResolvedOperatorOptions } from './options.js'

/** Methods that change nothing. */
const SAFE = ['GET', 'HEAD', 'OPTIONS']

/**
 * Refuses requests of other sites: what the browser says of their origin, or for clients that say nothing the header
 * `x-requested-with`, which pages of other sites cannot send.
 */
export const requireSameSite: CsrfProtection = {
  check({ headers }: FastifyRequest): void {
    const site = headers['sec-fetch-site']
    if (site === 'same-origin' || site === 'none') return
    if (site !== undefined || headers['x-requested-with'] === undefined) throw new CrossSiteError()
  }
}

/** Returns a hook that asks the host whether a request may be served, then whether it is of another site. */
export function guard(options: ResolvedOperatorOptions): Ask {
  const bySession = authorizer(options, 'session')
  const byKey = authorizer(options, 'api-key')
  return async (request, reply) => {
    const ask = request.headers.authorization === undefined ? bySession : byKey
    return (await ask(request, reply)) ?? (await refuseForged(options, request, reply))
  }
}

async function refuseForged(
  { csrf, timeouts }: ResolvedOperatorOptions,
  request: FastifyRequest,
  reply: FastifyReply
): Promise<FastifyReply | undefined> {
  if (SAFE.includes(request.method)) return undefined
  return unlessReplied(reply, timeouts.authorize, async () => {
    if ((await csrf.check(request, reply)) === false) throw new ForbiddenError()
  })
}
