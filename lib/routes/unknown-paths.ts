import type { FastifyReply, FastifyRequest } from 'fastify'
import { cutText, MOST } from '../bytes/cut-text.js'
import { InvalidParameterError } from '../errors.js'
import type { Fastify, Routes } from './context.js'

/** Replies as Fastify does to a request without a route, and repeats only what was asked. */
async function replyUnknown({ method, url }: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const message = cutText(`Route ${method}:${url} not found`, MOST.message)
  return reply.code(404).send({ statusCode: 404, error: 'Not Found', message })
}

/** Answers requests for unknown paths as Fastify does, but without waiting for a body. */
export function answerUnknown(scope: Fastify): void {
  scope.setNotFoundHandler(replyUnknown)
  scope.addHook('onRequest', async (request, reply) => {
    if (request.is404) return replyUnknown(request, reply)
  })
}

/** Returns undecoded segments: the parameter does not tell an encoded slash from one that divides. */
function wildSegments({ url, routeOptions }: FastifyRequest): string[] {
  const before = (routeOptions.url as string).split('/').length - 1
  return url.split('?', 1)[0].split('/').slice(before)
}

/** Refuses requests with several segments where a wild card stands for one. */
export async function refuseMoreSegments(
  request: FastifyRequest,
  reply: FastifyReply
): Promise<FastifyReply | undefined> {
  return wildSegments(request).length > 1 ? replyUnknown(request, reply) : undefined
}

/** Refuses ids beyond `maxParamLength` to permitted clients; the router would reply 414 to anybody. */
export const refuseLongIds: Routes = async (scope, { ask }) => {
  scope.addHook('onRequest', async (request, reply) => {
    if (!mayNameBackup(request)) return replyUnknown(request, reply)
    const refused = await ask(request, reply)
    if (refused) return refused
    throw new InvalidParameterError('params/backup_id is not the id of a backup')
  })
  scope.route({
    method: ['GET', 'PUT'],
    url: '/*',
    exposeHeadRoute: false,
    schema: { hide: true },
    // Not reached: a hook has replied.
    handler: replyUnknown
  })
}

/** Returns whether a path is `<id>`, or that of an attachment to append to it. */
function mayNameBackup(request: FastifyRequest): boolean {
  const [id, attachments, name, ...more] = wildSegments(request)
  if (id === '' || more.length > 0) return false
  if (attachments === undefined) return true
  return request.method === 'PUT' && attachments === 'attachments' && name !== undefined && name !== ''
}
