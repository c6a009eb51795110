import type { TransactionUpdate, WebhookStore, WebhookTransaction } from '../../types/webhooks.js'
import { TransactionExistsError, TransactionNotFoundError } from '../errors.js'

/** Keeps the newest `limit` transactions (1000 by default) in this process, until it ends. */
export function createMemoryWebhookStore(options: { limit?: number } = {}): WebhookStore {
  const limit = options.limit ?? 1000
  const transactions = new Map<string, WebhookTransaction>()
  return {
    async create(transaction) {
      if (transactions.has(transaction.tx_id)) throw new TransactionExistsError(transaction.tx_id)
      transactions.set(transaction.tx_id, structuredClone(transaction))
      if (transactions.size > limit) transactions.delete(transactions.keys().next().value as string)
    },
    async update(txId: string, update: TransactionUpdate) {
      const current = transactions.get(txId)
      if (!current) throw new TransactionNotFoundError(txId)
      const next = { ...current, ...structuredClone(update), ts_last_updated: Date.now() }
      transactions.set(txId, next)
      return structuredClone(next)
    },
    async get(txId) {
      const transaction = transactions.get(txId)
      return transaction ? structuredClone(transaction) : null
    },
    async list(most) {
      const restores = [...transactions.values()].filter(({ dry_run }) => !dry_run)
      return restores
        .map(({ tx_id }) => tx_id)
        .reverse()
        .slice(0, most)
    }
  }
}
