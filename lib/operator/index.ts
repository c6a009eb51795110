import { randomBytes } from 'node:crypto'
import { type FastifyPluginAsyncTypebox, TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import { handleError } from '../routes/error-handler.js'
import type { OperatorContext } from './context.js'
import { guard, requireSameSite } from './guard.js'
import { type OperatorOptions, resolveOperatorOptions } from './options.js'
import { backupRoutes } from './routes/backups.js'
import { overview } from './routes/overview.js'
import { restoreRoutes } from './routes/restores.js'
import { staticFiles } from './static-files.js'

/**
 * Serves a page for operators, and the routes that it and the command line need, below the prefix at which it is
 * registered. Register `fastify-couchdb-backups` before it, on the same instance or an outer one.
 * @throws TypeError at registration, naming the option that is missing or wrong
 */
export const operator: FastifyPluginAsyncTypebox<OperatorOptions> = async (scope, given) => {
  const options = resolveOperatorOptions(given, requireSameSite)
  if (!scope.hasDecorator('dbBackups'))
    throw new TypeError('register fastify-couchdb-backups before its operator plugin')
  await staticFiles(scope, options)
  scope.register(
    async (api) => {
      if (!api.hasRequestDecorator('backupsRequester')) api.decorateRequest('backupsRequester', undefined)
      api.setValidatorCompiler(TypeBoxValidatorCompiler)
      api.setSerializerCompiler(() => JSON.stringify)
      api.setErrorHandler(handleError)
      api.addHook('onRequest', async (_request, reply) => {
        reply.headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
      })
      // Refuse before anything of the body is read.
      api.addHook('onRequest', guard(options))
      const context: OperatorContext = {
        backups: api.dbBackups,
        options,
        instance: randomBytes(8).toString('hex')
      }
      for (const routes of [overview, backupRoutes, restoreRoutes]) api.register(routes, context)
    },
    { prefix: '/api' }
  )
}

export default operator
export { requireSameSite } from './guard.js'
export type { CsrfProtection, OperatorOptions, SignInOptions } from './options.js'
