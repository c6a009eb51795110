import type { FastifyReply } from 'fastify'
import type { Authorize, AuthorizeContext } from '../../types/options.js'
import { AuthorizationFailedError, ForbiddenError } from '../errors.js'
import { within } from '../waits/within.js'
import type { Ask } from './context.js'
import { statusOf } from './error-handler.js'

/** Returns a hook that asks the host. The host refuses by `false`, by throwing, hanging, or replying. */
export function authorizer(
  { authorize, timeouts }: { authorize: Authorize; timeouts: { authorize: number } },
  scheme: AuthorizeContext['scheme']
): Ask {
  return (request, reply) =>
    unlessReplied(reply, timeouts.authorize, async () => {
      const context = { action: 'blockchain.optools.settings', scheme } as const
      const requester = await authorize(request, context, reply)
      // The types exclude `false`, but its meaning is clear.
      if ((requester as unknown) === false) throw new ForbiddenError()
      request.backupsRequester = requester ?? undefined
    })
}

/**
 * Runs code of the host that may refuse a request, in `timeout` milliseconds. @returns the reply when it has replied
 * @throws AuthorizationFailedError when it is late, or fails without a status
 */
export async function unlessReplied(
  reply: FastifyReply,
  timeout: number,
  ask: () => Promise<void>
): Promise<FastifyReply | undefined> {
  const hasReplied = watchReply(reply)
  try {
    await within(timeout, () => new AuthorizationFailedError(), ask)
    return hasReplied() ? reply : undefined
  } catch (error) {
    if (hasReplied()) return reply
    throw statusOf(error) === undefined ? new AuthorizationFailedError({ cause: error }) : error
  }
}

/** Tells whether somebody has replied: Fastify tells only once `onSend` hooks have ended (docs/architecture.md). */
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
