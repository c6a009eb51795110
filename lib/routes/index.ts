import { TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Requester } from '../../types/backups.js'
import { InvalidParameterError } from '../errors.js'
import type { Operations } from '../operations/operations.js'
import type { ResolvedOptions } from '../options.js'
import { SHARED_SCHEMAS } from '../schemas/shared.js'
import { appendAttachment, appendLongNamed } from './append-attachment.js'
import { authorize } from './authorize.js'
import { type Ask, type RouteContext, replyUnknown, type Scope } from './context.js'
import { describer } from './describe.js'
import { handleError } from './error-handler.js'
import { getBackup } from './get-backup.js'
import { listBackups } from './list-backups.js'
import { originOf } from './origin.js'
import { restoreStored } from './restore-stored.js'
import { restoreUpload } from './restore-upload.js'
import { startBackup } from './start-backup.js'
import { UnreadReplies } from './unread-replies.js'

const PREFIXES = [
  { prefix: '/api', scheme: 'session' },
  { prefix: '/ak/api', scheme: 'api-key' }
] as const
const VERSIONS = ['v1', 'v2', 'v3']

/** Registers the six routes at both prefixes and every version. */
export function registerRoutes(
  fastify: FastifyInstance,
  operations: Operations,
  options: ResolvedOptions
): void {
  const unread = new UnreadReplies(options.timeouts.idle, operations.deadline)
  for (const { prefix, scheme } of PREFIXES) {
    for (const version of VERSIONS) {
      fastify.register(
        async (instance) => {
          const scope = instance.withTypeProvider() as Scope
          const requesters = new WeakMap<FastifyRequest, Requester>()
          const context: RouteContext = {
            operations,
            options,
            describe: describer(scheme, version, options),
            requesterOf: (request) => requesters.get(request),
            urlsOf(request) {
              const base = `${originOf(request, options)}${fastify.prefix}`
              return (path) => `${base}${path}`
            }
          }
          scope.setValidatorCompiler(TypeBoxValidatorCompiler)
          // The schemas of replies describe them: the host's own refusals are sent as the host words them.
          scope.setSerializerCompiler(() => JSON.stringify)
          for (const schema of SHARED_SCHEMAS) scope.addSchema(schema)
          scope.setErrorHandler(handleError)
          const ask: Ask = async (request, reply) => {
            const requester = await authorize(options, scheme, request, reply)
            if (requester === null) return reply
            if (requester) requesters.set(request, requester)
          }
          scope.addHook('onRequest', async (_request, reply) => unread.begin(reply))
          scope.addHook('onSend', async (_request, reply, payload) => unread.watch(reply, payload))
          acceptEmptyJson(scope)
          answerUnknown(scope)
          scope.register(async (own) => registerApis(own as Scope, context, ask))
          scope.register(async (own) => appendLongNamed(own as Scope, context, ask))
          refuseLongIds(scope, ask)
        },
        { prefix: `${prefix}/${version}/backups` }
      )
    }
  }
}

/** Clients send the JSON content type also where there is no body. */
function acceptEmptyJson(scope: Scope): void {
  const parse = scope.getDefaultJsonParser('error', 'error')
  scope.removeContentTypeParser('application/json')
  scope.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') return done(null, undefined)
    return parse(request, body as string, done)
  })
}

/** The routes that clients know. Their requests are authorized before anything of the body is read. */
function registerApis(scope: Scope, context: RouteContext, ask: Ask): void {
  scope.addHook('onRequest', ask)
  startBackup(scope, context)
  listBackups(scope, context)
  getBackup(scope, context)
  restoreStored(scope, context)
  scope.register(async (own) => appendAttachment(own as Scope, context))
  scope.register(async (own) => restoreUpload(own as Scope, context))
}

/** Answers whoever asks for what does not exist: as Fastify does, but before a body is waited for. */
function answerUnknown(scope: Scope): void {
  scope.setNotFoundHandler(replyUnknown)
  scope.addHook('onRequest', async (request, reply) => {
    if (request.is404) return replyUnknown(request, reply)
  })
}

/** What follows the prefix in paths with the id of a backup. */
const NAMED = /^[^/]+$/
const APPENDED = /^[^/]+(?:\/attachments\/[^/]+)?$/

/**
 * The router does not match parameters longer than the host's `maxParamLength`, and replies 414 to anybody unless
 * another route takes them: tells what is wrong with an id to those who may ask.
 */
function refuseLongIds(scope: Scope, ask: Ask): void {
  scope.route({
    method: ['GET', 'PUT'],
    url: '/*',
    exposeHeadRoute: false,
    schema: { hide: true } as object,
    // Before the body is read.
    async onRequest(request, reply) {
      const path = request.url.split('?')[0].slice(scope.prefix.length + 1)
      if (!(request.method === 'PUT' ? APPENDED : NAMED).test(path)) return replyUnknown(request, reply)
      const replied = await ask(request, reply)
      if (replied) return replied
      throw new InvalidParameterError('params/backup_id is not the id of a backup')
    },
    // Not reached: the hook has replied.
    handler: replyUnknown
  })
}
