import { type FastifyPluginAsyncTypebox, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import type { AuthorizeContext } from '../../types/options.js'
import { joinPiecesOfRequest } from '../bytes/small-pieces.js'
import { AttachmentStored, Backup, BackupIds, BackupStarted } from '../schemas/backup.js'
import { ErrorReply } from '../schemas/errors.js'
import { RestoreStarted } from '../schemas/restore.js'
import { Transaction } from '../schemas/transaction.js'
import { appendAttachment, appendLongNamed } from './append-attachment.js'
import { authorizer } from './authorize.js'
import { describer, type Fastify, type RouteContext, type Routes } from './context.js'
import { handleError } from './error-handler.js'
import { getBackup } from './get-backup.js'
import { listBackups } from './list-backups.js'
import { originOf } from './origin.js'
import { untilSendable } from './pipelined-replies.js'
import { restoreStored } from './restore-stored.js'
import { restoreUpload } from './restore-upload.js'
import { startBackup } from './start-backup.js'
import { answerUnknown, refuseLongIds, refuseMoreSegments } from './unknown-paths.js'
import { UnreadReplies } from './unread-replies.js'

const PREFIXES: readonly { base: string; scheme: AuthorizeContext['scheme'] }[] = [
  { base: '/api', scheme: 'session' },
  { base: '/ak/api', scheme: 'api-key' }
]
const VERSIONS = ['v1', 'v2', 'v3']

const SCHEMAS = [AttachmentStored, Backup, BackupIds, BackupStarted, ErrorReply, RestoreStarted, Transaction]

/** Registers the six routes at both prefixes and every version. */
export const routes: FastifyPluginAsyncTypebox<Pick<RouteContext, 'operations' | 'options'>> = async (
  scope,
  { operations, options }
) => {
  const urlsOf: RouteContext['urlsOf'] = (request) => operations.urlsUnder(originOf(request, options))
  scope.decorateRequest('backupsRequester', undefined)
  scope.setValidatorCompiler(TypeBoxValidatorCompiler)
  // The schemas only describe replies: the host's own refusals keep their words.
  scope.setSerializerCompiler(() => JSON.stringify)
  for (const schema of SCHEMAS) scope.addSchema(schema)
  scope.setErrorHandler(handleError)
  const unread = new UnreadReplies(options.timeouts.idle, operations.deadline)
  scope.addHook('onRequest', async (request, reply) => {
    // Before anything waits: the body arrives meanwhile.
    joinPiecesOfRequest(request.raw)
    unread.begin(reply)
    await untilSendable(request, reply)
  })
  scope.addHook('onSend', async (_request, reply, payload) => unread.watch(reply, payload))
  acceptEmptyJson(scope)
  for (const { base, scheme } of PREFIXES) {
    for (const version of VERSIONS) {
      const ask = authorizer(options, scheme)
      const describe = describer(scheme, version, options)
      const context: RouteContext = { operations, options, ask, describe, urlsOf }
      const prefix = `${base}/${version}/backups`
      scope.register(
        named(async (own: Fastify) => registerVersion(own, context), prefix),
        { prefix }
      )
    }
  }
}

/** Accepts the JSON content type without a body, which clients send. */
function acceptEmptyJson(scope: Fastify): void {
  const parse = scope.getDefaultJsonParser('error', 'error')
  scope.removeContentTypeParser('application/json')
  scope.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') return done(null, undefined)
    return parse(request, body as string, done)
  })
}

/** Registers the routes of one prefix and version, and the answers to paths beside them. */
function registerVersion(scope: Fastify, context: RouteContext): void {
  answerUnknown(scope)
  const routed = async (own: Fastify) => {
    // Called before anything of the body is read.
    own.addHook('onRequest', context.ask)
    for (const api of [startBackup, listBackups, getBackup, restoreStored, appendAttachment, restoreUpload])
      own.register(named(api), context)
  }
  const longNamed = async (own: Fastify) => {
    own.addHook('onRequest', refuseMoreSegments)
    own.addHook('onRequest', context.ask)
    own.register(named(appendLongNamed), context)
  }
  scope.register(named(routed))
  scope.register(named(longNamed))
  scope.register(named(refuseLongIds), context)
}

/** Names a plugin. Fastify would look for the name in every loaded module, twice. */
function named<P extends Routes | ((scope: Fastify) => Promise<void>)>(plugin: P, name = plugin.name): P {
  return Object.assign(plugin, { [Symbol.for('fastify.display-name')]: name })
}
