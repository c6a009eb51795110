import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Requester } from '../../types/backups.js'
import type { AuthorizeContext } from '../../types/options.js'
import { AuthorizationFailedError, ForbiddenError } from '../errors.js'
import type { ResolvedOptions } from '../options.js'
import { within } from '../waits/within.js'

/**
 * Asks the host whether a request may be served. A hook that throws, hangs, replies itself, or gives `false` refuses.
 * @returns who asks, or `null` when the hook has replied
 */
export async function authorize(
  { authorize: hook, timeouts }: ResolvedOptions,
  scheme: AuthorizeContext['scheme'],
  request: FastifyRequest,
  reply: FastifyReply
): Promise<Requester | undefined | null> {
  // `reply.sent` stays false while onSend hooks run and while a stream is being sent.
  let replied = false
  for (const method of ['send', 'callNotFound'] as const) {
    const original = reply[method] as (...args: unknown[]) => FastifyReply
    reply[method] = (...args: unknown[]) => {
      replied = true
      return original.apply(reply, args)
    }
  }
  const hasReplied = () => replied || reply.sent || reply.raw.headersSent
  try {
    const requester = await within(
      timeouts.authorize,
      () => new AuthorizationFailedError(),
      async () => hook(request, { action: 'blockchain.optools.settings', scheme }, reply)
    )
    if (hasReplied()) return null
    // No type allows it, but whoever writes it means this.
    if ((requester as unknown) === false) throw new ForbiddenError()
    return requester ?? undefined
  } catch (error) {
    if (hasReplied()) return null
    const statusCode = (error as { statusCode?: unknown } | undefined)?.statusCode
    if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 600) throw error
    if (error instanceof AuthorizationFailedError) throw error
    throw new AuthorizationFailedError({ cause: error })
  }
}
