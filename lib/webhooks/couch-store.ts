import { Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { ServerScope } from 'nano'
import type { WebhookStore, WebhookTransaction } from '../../types/webhooks.js'
import { CouchClient } from '../couch/client.js'
import { checkCouch, connectionTo } from '../couch/connection.js'
import { CouchDatabase } from '../couch/database.js'
import { CouchError, isConflict } from '../couch/errors.js'
import { BACKGROUND, FOREGROUND, type RetryPolicy } from '../couch/retry.js'
import { DATABASE_NAME } from '../databases.js'
import { TransactionNotFoundError } from '../errors.js'
import { TRANSACTION_TYPE } from '../own-documents.js'
import { LinkedAbort } from '../waits/linked-abort.js'

/** What is read of a transaction to order it. Clients may have stored others. */
const Started = Type.Object({ tx_id: Type.String(), ts_started: Type.Number() })

/** Transactions that are looked at for the latest ones. */
const MOST_FOUND = 2000

export interface CouchWebhookStoreOptions {
  /** nano's server scope, or a function that returns one. */
  couch: ServerScope | (() => ServerScope)
  /** Database for the transactions: athena keeps them in its system database. */
  database: string
  /** Milliseconds for one call to CouchDB. Default 30 000. */
  timeout?: number
}

/**
 * Keeps transactions as documents by their ids, as athena does. Calls outlive a restart of the database,
 * except the first, for which somebody waits. @throws TypeError when `couch` or `database` cannot be used
 */
export function createCouchWebhookStore({
  couch,
  database,
  timeout = 30_000
}: CouchWebhookStoreOptions): WebhookStore {
  checkCouch(couch)
  if (typeof database !== 'string' || !DATABASE_NAME.test(database))
    throw new TypeError('database must be the name of a database of CouchDB')
  const client = new CouchClient({
    connect: () => connectionTo(couch),
    retry: BACKGROUND,
    control: timeout,
    idle: timeout
  })
  // A call that was given up must not write late: by then another instance may have recorded the end.
  const bounded = async <T>(retry: RetryPolicy, call: (db: CouchDatabase) => Promise<T>): Promise<T> => {
    const deadline = new LinkedAbort().after(3 * timeout, () => tooLate(database))
    try {
      return await call(new CouchDatabase(client.with({ retry, signal: deadline.signal }), database))
    } finally {
      deadline.release()
    }
  }

  return {
    create: (transaction) => bounded(FOREGROUND, (db) => create(db, transaction)),

    async update(txId, update) {
      const updated = await bounded(BACKGROUND, (db) =>
        db.modify<WebhookTransaction>(txId, (current) => {
          if (current?.type !== TRANSACTION_TYPE) throw new TransactionNotFoundError(txId)
          return { ...current, ...update, ts_last_updated: Date.now() }
        })
      )
      return withoutMeta(updated as WebhookTransaction)
    },

    async get(txId) {
      if (txId === '' || txId.startsWith('_')) return null
      const transaction = await bounded(BACKGROUND, (db) => db.get<WebhookTransaction>(txId))
      return transaction?.type === TRANSACTION_TYPE ? withoutMeta(transaction) : null
    },

    list: (most) => bounded(FOREGROUND, (db) => latest(db, most))
  }
}

async function create(db: CouchDatabase, transaction: WebhookTransaction): Promise<void> {
  try {
    await db.put({ ...transaction, _id: transaction.tx_id })
  } catch (error) {
    if (!isConflict(error)) throw error
    // A conflict with ourselves: the reply to the write was lost.
    const existing = await db.get<WebhookTransaction>(transaction.tx_id)
    if (existing?.ts_started !== transaction.ts_started) throw error
  }
}

/** Finds the latest restores. No index orders them, and none is made: it would be a document of the host's database. */
async function latest(db: CouchDatabase, most: number): Promise<string[]> {
  const selector = { type: TRANSACTION_TYPE, sub_type: 'backup_restore', dry_run: { $exists: false } }
  const found = await db.query({ selector, fields: ['tx_id', 'ts_started'], limit: MOST_FOUND })
  const started = found.filter((one) => Value.Check(Started, one))
  started.sort((a, b) => b.ts_started - a.ts_started)
  return started.slice(0, most).map(({ tx_id }) => tx_id)
}

const tooLate = (database: string) =>
  new CouchError(database, {
    error: 'stalled',
    reason: 'the database did not answer in time',
    retryable: true
  })

function withoutMeta(transaction: WebhookTransaction & { _id?: string; _rev?: string }): WebhookTransaction {
  const { _id, _rev, ...rest } = transaction
  return rest
}
