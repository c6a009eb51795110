import type { RestoreOptions, RestoreOutcome } from '../../types/backups.js'
import type { TransactionUpdate, WebhookStore, WebhookTransaction } from '../../types/webhooks.js'
import { cutRequester, cutText, MOST, messageOf } from '../bytes/cut-text.js'
import { HostTimeoutError } from '../errors.js'
import { TRANSACTION_TYPE } from '../own-documents.js'
import { TOTAL_STEPS } from '../restore/restore-job.js'
import { hostWithin } from '../waits/host-code.js'

/** Milliseconds that clients are told to expect, whatever a restore takes. */
const TIMEOUT = 10 * 60_000

/** Returns the path of a transaction, which the host serves. */
export const transactionPath = (txId: string): string => `/ak/api/v1/webhooks/txs/${txId}`

/** The transactions of restores, in the host's store. */
export class Transactions {
  readonly #store: WebhookStore

  /** @param timeout milliseconds for each call of `store` */
  constructor(store: WebhookStore, timeout: number) {
    const bounded = <T>(name: keyof WebhookStore, call: () => Promise<T>) =>
      hostWithin(timeout, `webhooks.${name}`, call)
    this.#store = {
      create: (transaction) => bounded('create', () => store.create(transaction)),
      update: (txId, update) => bounded('update', () => store.update(txId, update)),
      get: (txId) => bounded('get', () => store.get(txId)),
      list: async (limit) => (store.list ? bounded('list', async () => store.list?.(limit) ?? []) : [])
    }
  }

  get(txId: string): Promise<WebhookTransaction | null> {
    return this.#store.get(txId)
  }

  /** Returns the ids of the latest restores, as far as the store tells them. */
  async list(limit: number): Promise<string[]> {
    return (await this.#store.list?.(limit)) ?? []
  }

  async isOver(txId: string): Promise<boolean> {
    const transaction = await this.#store.get(txId)
    return transaction !== null && transaction.status !== 'pending'
  }

  /** @param about.url where to read it @param about.backup_id the backup, if named by its id */
  async create(
    about: Pick<WebhookTransaction, 'tx_id' | 'url' | 'backup_id'>,
    { clientWebhookUrl, dryRun, requester: given }: RestoreOptions
  ): Promise<void> {
    const now = Date.now()
    const requester = cutRequester(given)
    await this.#store.create({
      ...about,
      type: TRANSACTION_TYPE,
      sub_type: 'backup_restore',
      description: 'restoring dbs from backup',
      status: 'pending',
      by: requester?.name ?? '-',
      uuid: requester?.uuid ?? '-',
      ...(clientWebhookUrl !== undefined && { client_webhook_url: clientWebhookUrl }),
      ts_started: now,
      ts_last_updated: now,
      on_step: 1,
      total_steps: TOTAL_STEPS,
      athena_messages: [],
      timeout_ms: TIMEOUT,
      ...(dryRun && { dry_run: true })
    })
  }

  async update(txId: string, update: TransactionUpdate): Promise<void> {
    await this.#store.update(txId, update)
  }

  /** Ends a transaction, without details that the store refuses. `beforeWrite` throws without the lease. */
  async complete(
    txId: string,
    update: TransactionUpdate,
    message: string,
    beforeWrite: () => void
  ): Promise<void> {
    const current = await this.#store.get(txId)
    // The clock may have been set, or that of the instance that began is ahead.
    const end = { ...update, ts_completed: Math.max(Date.now(), current?.ts_started ?? 0) }
    const messages = [...(current?.athena_messages ?? []), cutText(message, MOST.message)]
    beforeWrite()
    try {
      await this.#store.update(txId, { ...end, athena_messages: messages })
    } catch (error) {
      // A store that does not answer would not answer again.
      if (error instanceof HostTimeoutError) throw error
      const written = await this.isOver(txId)
      beforeWrite()
      if (written) return
      const short = { failures: [], ...(end.changes && { changes: [] }) }
      await this.#store.update(txId, { ...end, ...short, athena_messages: [shortOf(message, error)] })
    }
  }

  /** Ends a pending transaction. @throws what the store says of one it lacks: a lagging replica may answer */
  async fail(txId: string, reason: string, beforeWrite: () => void, outcome?: RestoreOutcome): Promise<void> {
    const transaction = await this.#store.get(txId)
    if (transaction && transaction.status !== 'pending') return
    await this.complete(txId, { status: 'error', ...(outcome && toldAtEnd(outcome)) }, reason, beforeWrite)
  }

  /** Ends a transaction if it is there: it may never have been written, or was left a lease ago. */
  async failIfThere(txId: string, reason: string, beforeWrite: () => void): Promise<void> {
    try {
      await this.fail(txId, reason, beforeWrite)
    } catch (error) {
      if (await this.#store.get(txId)) throw error
    }
  }
}

/** Returns the members of a transaction that tell what a restore has done. */
export const toldAtEnd = (outcome: RestoreOutcome) => ({
  databases: outcome.databases,
  failures: outcome.failures,
  ...(outcome.changes && { changes: outcome.changes, changes_count: outcome.changes_count })
})

/** Tells how a restore ended, for a store that refused to be told more. */
function shortOf(message: string, refusal: unknown): string {
  const why = cutText(messageOf(refusal), MOST.name)
  return `${cutText(message, MOST.reason)}; more could not be stored: ${why}`
}
