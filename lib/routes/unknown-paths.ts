import type { FastifyReply, FastifyRequest } from 'fastify'
import { cutText, MOST } from '../bytes/cut-text.js'
import { InvalidParameterError } from '../errors.js'
import type { Routes, Scope } from './context.js'

/** Replies as Fastify does to a request for which there is no route. Tells nothing that was not asked. */
async function replyUnknown({ method, url }: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const message = cutText(`Route ${method}:${url} not found`, MOST.message)
  return reply.code(404).send({ statusCode: 404, error: 'Not Found', message })
}

/** Answers whoever asks for what does not exist: as Fastify does, but before a body is waited for. */
export function answerUnknown(scope: Scope): void {
  scope.setNotFoundHandler(replyUnknown)
  scope.addHook('onRequest', async (request, reply) => {
    if (request.is404) return replyUnknown(request, reply)
  })
}

/**
 * Returns the segments of a path for which the wild card at the end of its route stands, as the client sent them. The
 * router's parameter is decoded: an encoded slash in it is none that divides.
 */
function wildSegments({ url, routeOptions }: FastifyRequest): string[] {
  const before = (routeOptions.url as string).split('/').length - 1
  return url.split('?', 1)[0].split('/').slice(before)
}

/** Answers, for a route that ends with a wild card, requests with more segments than one: they are not there for anybody. */
export async function refuseMoreSegments(
  request: FastifyRequest,
  reply: FastifyReply
): Promise<FastifyReply | undefined> {
  return wildSegments(request).length > 1 ? replyUnknown(request, reply) : undefined
}

/**
 * Registers routes for ids that the router does not match, since they are longer than the host's `maxParamLength`: it
 * would reply 414 to anybody. Tells those who may ask what is wrong, before a body is read.
 */
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
