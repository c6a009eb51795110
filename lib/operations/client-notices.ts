import type { WebhookDelivery, WebhookTransaction } from '../../types/webhooks.js'
import { InvalidParameterError } from '../errors.js'
import { RefusedUrlError } from '../webhooks/address.js'
import { Notifier } from '../webhooks/notifier.js'
import type { Environment } from './environment.js'
import type { Transactions } from './transactions.js'

/** How long, in times of the lease, the instance that restored may take to tell its client. */
const PATIENCE = 2

/** Tells clients, at least once, how their restores ended. */
export class ClientNotices {
  readonly #environment: Environment
  readonly #transactions: Transactions
  readonly #notifier: Notifier
  /** Ends deliveries. */
  readonly #shutdown = new AbortController()
  /** Transactions whose clients this instance is telling. */
  readonly #sending = new Set<string>()
  /** Since when, on the monotonic clock, this instance knows of each notice. */
  #owed = new Map<string, number>()

  constructor(environment: Environment, transactions: Transactions) {
    this.#environment = environment
    this.#transactions = transactions
    this.#notifier = new Notifier(environment.options.clientWebhook)
  }

  /** @throws InvalidParameterError */
  async checkUrl(url: unknown): Promise<void> {
    if (typeof url !== 'string') throw new InvalidParameterError('client_webhook_url must be a string')
    try {
      await this.#notifier.check(url)
    } catch (error) {
      if (error instanceof RefusedUrlError)
        throw new InvalidParameterError(`client_webhook_url ${error.message}`)
      throw error
    }
  }

  /** When it cannot be found out now, it is found out when the client's turn has come. */
  async isDue(txId: string): Promise<boolean> {
    try {
      const transaction = await this.#transactions.get(txId)
      return transaction !== null && awaitsNotice(transaction)
    } catch {
      return true
    }
  }

  /** Tells the client how its restore ended. Until that is done, every instance knows that it is to be done. */
  async send(txId: string): Promise<void> {
    if (this.#sending.has(txId)) return
    this.#sending.add(txId)
    try {
      const transaction = await this.#transactions.get(txId)
      if (transaction && awaitsNotice(transaction)) {
        const record = (delivery: WebhookDelivery) =>
          this.#transactions.update(txId, { client_webhook: delivery })
        const delivery = await this.#notifier.deliver(transaction, record, this.#shutdown.signal)
        // Cut off by the server's end: another instance, or this one when it is back, does it.
        if (!delivery.delivered && this.#shutdown.signal.aborted) return
        await this.#transactions.update(txId, { client_webhook: delivery })
        this.#tell(txId, delivery)
      }
      await this.#environment.notices.remove(txId)
    } finally {
      this.#sending.delete(txId)
    }
  }

  /** Tells clients that the instance that restored for them did not tell. */
  async sendOverdue(): Promise<void> {
    const { notices, options } = this.#environment
    const now = performance.now()
    const owed = await notices.list()
    this.#owed = new Map(owed.map((txId) => [txId, this.#owed.get(txId) ?? now]))
    const due = [...this.#owed].filter(([, since]) => now - since >= PATIENCE * options.timeouts.lease)
    // One that cannot be sent does not keep others from being sent.
    const sent = await Promise.allSettled(due.map(([txId]) => this.send(txId)))
    for (const one of sent) if (one.status === 'rejected') throw one.reason
  }

  #tell(txId: string, { attempts, delivered, last_status: status, last_error }: WebhookDelivery): void {
    const { events } = this.#environment
    if (delivered) events.emit({ type: 'webhook_delivered', tx_id: txId, attempts, status: status ?? 0 })
    else
      events.emit({
        type: 'webhook_failed',
        tx_id: txId,
        attempts,
        ...(status === undefined ? undefined : { status }),
        reason: last_error ?? 'unknown'
      })
  }

  /** Cuts off deliveries. */
  stop(): void {
    this.#shutdown.abort()
  }

  async close(): Promise<void> {
    await this.#notifier.close()
  }
}

/** Whether the client of a transaction that has ended is still to be told. */
const awaitsNotice = ({ client_webhook_url, client_webhook }: WebhookTransaction): boolean =>
  client_webhook_url !== undefined && (client_webhook?.pending ?? client_webhook === undefined)
