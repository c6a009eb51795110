import { Value } from '@sinclair/typebox/value'
import type { ServerScope } from 'nano'
import type { TransactionUpdate, WebhookStore, WebhookTransaction } from '../../types/webhooks.js'
import { CouchClient } from '../couch/client.js'
import { checkCouch, connectionTo } from '../couch/connection.js'
import { CouchDatabase } from '../couch/database.js'
import { CouchError, isConflict } from '../couch/errors.js'
import { FOREGROUND } from '../couch/retry.js'
import { DatabaseName } from '../databases.js'

export interface CouchWebhookStoreOptions {
  couch: ServerScope | (() => ServerScope)
  /** Database for the transactions: athena keeps them in its system database. */
  database: string
  /** Milliseconds for one call to CouchDB. Default 30 000. */
  timeout?: number
}

/**
 * Keeps transactions as documents whose `_id` is the transaction's id, as athena does.
 * @throws TypeError when `couch` or `database` cannot be used
 */
export function createCouchWebhookStore({
  couch,
  database,
  timeout = 30_000
}: CouchWebhookStoreOptions): WebhookStore {
  checkCouch(couch)
  if (!Value.Check(DatabaseName, database))
    throw new TypeError('database must be the name of a database of CouchDB')
  const client = new CouchClient({
    connect: () => connectionTo(couch),
    retry: FOREGROUND,
    control: timeout,
    idle: timeout
  })
  const db = new CouchDatabase(client, database)

  return {
    async create(transaction) {
      try {
        await db.put({ ...transaction, _id: transaction.tx_id })
      } catch (error) {
        if (!isConflict(error)) throw error
        // The conflict may be ours, if the reply to the write was lost.
        const existing = await db.get<WebhookTransaction>(transaction.tx_id)
        if (existing?.ts_started !== transaction.ts_started) throw error
      }
    },

    async update(txId: string, update: TransactionUpdate) {
      const updated = await db.modify<WebhookTransaction>(txId, (current) => {
        if (current?.type !== 'webhook_tx')
          throw new CouchError(txId, {
            status: 404,
            error: 'not_found',
            reason: 'there is no such transaction'
          })
        return { ...current, ...update, ts_last_updated: Date.now() }
      })
      return withoutMeta(updated as WebhookTransaction)
    },

    async get(txId) {
      if (txId === '' || txId.startsWith('_')) return null
      const transaction = await db.get<WebhookTransaction>(txId)
      return transaction?.type === 'webhook_tx' ? withoutMeta(transaction) : null
    }
  }
}

function withoutMeta(transaction: WebhookTransaction & { _id?: string; _rev?: string }): WebhookTransaction {
  const { _id, _rev, ...rest } = transaction
  return rest
}
