import type { FastifyReply } from 'fastify'
import type { AuthorizeContext } from '../../types/options.js'
import { AuthorizationFailedError, ForbiddenError } from '../errors.js'
import type { ResolvedOptions } from '../options.js'
import { within } from '../waits/within.js'
import type { Ask } from './context.js'
import { statusOf } from './error-handler.js'

/** Returns a hook that asks the host. The host refuses by `false`, by throwing, hanging, or replying. */
export function authorizer(
  { authorize, timeouts }: ResolvedOptions,
  scheme: AuthorizeContext['scheme']
): Ask {
  return async (request, reply) => {
    const hasReplied = watchReply(reply)
    try {
      const requester = await within(
        timeouts.authorize,
        () => new AuthorizationFailedError(),
        async () => authorize(request, { action: 'blockchain.optools.settings', scheme }, reply)
      )
      if (hasReplied()) return reply
      // The types exclude `false`, but its meaning is clear.
      if ((requester as unknown) === false) throw new ForbiddenError()
      request.backupsRequester = requester ?? undefined
      return undefined
    } catch (error) {
      if (hasReplied()) return reply
      throw statusOf(error) === undefined ? new AuthorizationFailedError({ cause: error }) : error
    }
  }
}

/** Tells whether somebody has replied: `reply.sent` stays false during onSend hooks and streams. */
function watchReply(reply: FastifyReply): () => boolean {
  let replied = false
  for (const method of ['send', 'callNotFound'] as const) {
    const original = reply[method] as (...args: unknown[]) => FastifyReply
    reply[method] = (...args: unknown[]) => {
      replied = true
      return original.apply(reply, args)
    }
  }
  return () => replied || reply.sent || reply.raw.headersSent
}
