import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { DbBackups } from '../../types/index.js'
import type { ResolvedOperatorOptions } from './options.js'

/** The objects that the routes work with. */
export interface OperatorContext {
  backups: DbBackups
  options: ResolvedOperatorOptions
  /** Another one after each start of the host. */
  instance: string
}

export type OperatorRoutes = FastifyPluginAsyncTypebox<OperatorContext>
