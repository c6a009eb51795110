import { TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Requester } from '../../types/backups.js'
import type { Operations } from '../operations.js'
import type { ResolvedOptions } from '../options.js'
import { SHARED_SCHEMAS } from '../schemas/shared.js'
import { isBackupId } from '../store/names.js'
import { appendAttachment } from './append-attachment.js'
import { authorize } from './authorize.js'
import type { RouteContext, Scope } from './context.js'
import { describer } from './describe.js'
import { handleError } from './error-handler.js'
import { getBackup } from './get-backup.js'
import { listBackups } from './list-backups.js'
import { restoreStored } from './restore-stored.js'
import { restoreUpload } from './restore-upload.js'
import { startBackup } from './start-backup.js'

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
            urlOf: (request, path) => `${originOf(request, options)}${fastify.prefix}${path}`
          }
          scope.setValidatorCompiler(TypeBoxValidatorCompiler)
          // The schemas of replies describe them: the host's own refusals are sent as the host words them.
          scope.setSerializerCompiler(() => JSON.stringify)
          for (const schema of SHARED_SCHEMAS) scope.addSchema(schema)
          scope.setErrorHandler(handleError)
          // Before anything of the body is read.
          scope.addHook('onRequest', async (request, reply) => {
            const requester = await authorize(options, scheme, request, reply)
            if (requester === null) return reply
            if (requester) requesters.set(request, requester)
          })
          acceptEmptyJson(scope)
          refuseUnroutable(scope)
          startBackup(scope, context)
          listBackups(scope, context)
          getBackup(scope, context)
          restoreStored(scope, context)
          scope.register(async (own) => appendAttachment(own as Scope, context))
          scope.register(async (own) => restoreUpload(own as Scope, context))
        },
        { prefix: `${prefix}/${version}/backups` }
      )
    }
  }
}

function originOf(request: FastifyRequest, { publicUrl }: ResolvedOptions): string {
  if (publicUrl) return publicUrl
  return `${request.protocol}://${request.host || 'localhost'}`
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

/**
 * The router does not match parameters longer than the host's `maxParamLength`, and replies 414 to anybody unless
 * another route takes them: say what is wrong with them, to those who may ask.
 */
function refuseUnroutable(scope: Scope): void {
  const refuse = async (request: FastifyRequest, reply: FastifyReply) => {
    const path = request.url.split('?')[0].slice(scope.prefix.length + 1)
    const parts = /^([^/]+)(?:\/attachments\/([^/]+))?$/.exec(path)
    if (parts && (request.method === 'PUT' || (request.method === 'GET' && parts[2] === undefined))) {
      const wrong = isBackupId(parts[1])
        ? 'params/att_name is too long'
        : 'params/backup_id is not the id of a backup'
      return reply
        .code(400)
        .send({ statusCode: 400, code: 'DB_BACKUPS_INVALID_PARAMETER', error: 'Bad Request', message: wrong })
    }
    return reply.code(404).send({ statusCode: 404, error: 'Not Found', message: 'there is no such route' })
  }
  scope.setNotFoundHandler(refuse)
  scope.addHook('onRequest', async (request, reply) => {
    if (request.is404) return refuse(request, reply)
  })
  scope.route({
    method: ['GET', 'PUT'],
    url: '/*',
    exposeHeadRoute: false,
    schema: { hide: true } as object,
    // Before the body is read.
    onRequest: refuse,
    handler: refuse
  })
}
