import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Requester } from '../../types/backups.js'
import type { AuthorizeContext } from '../../types/options.js'
import type { ResolvedOptions } from '../options.js'
import { within } from '../within.js'

const AuthorizationFailedError = createError(
  'DB_BACKUPS_AUTHORIZATION_FAILED',
  'the request could not be authorized',
  500
)

/**
 * Asks the host whether a request may be served. A hook that throws, hangs or replies itself refuses.
 * @returns who asks; check `reply.sent` before going on
 */
export async function authorize(
  { authorize: hook, timeouts }: ResolvedOptions,
  scheme: AuthorizeContext['scheme'],
  request: FastifyRequest,
  reply: FastifyReply
): Promise<Requester | undefined> {
  try {
    const requester = await within(timeouts.authorize, 'authorize', async () =>
      hook(request, { action: 'blockchain.optools.settings', scheme }, reply)
    )
    return requester ?? undefined
  } catch (error) {
    const { statusCode } = error as { statusCode?: unknown }
    if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 600) throw error
    throw new AuthorizationFailedError({ cause: error })
  }
}
