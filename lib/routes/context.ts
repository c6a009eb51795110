import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  FastifyRequest,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault
} from 'fastify'
import type { Requester } from '../../types/backups.js'
import type { Operations } from '../operations.js'
import type { ResolvedOptions } from '../options.js'

export type Scope = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** What the routes share. */
export interface RouteContext {
  operations: Operations
  options: ResolvedOptions
  /** Who asks, as `authorize` told. */
  requesterOf(request: FastifyRequest): Requester | undefined
  /** Absolute URL of a path of the API. */
  urlOf(request: FastifyRequest, path: string): string
}

export const backupUrl = (id: string): string => `/ak/api/v2/backups/${id}`
export const transactionUrl = (txId: string): string => `/ak/api/v1/webhooks/txs/${txId}`

/** For routes that need no body: clients send none, `null` or an empty object. */
export async function acceptNoBody(request: FastifyRequest): Promise<void> {
  request.body ??= {}
}
