import type { WebhookDelivery, WebhookTransaction } from '../../types/webhooks.js'
import type { CouchDatabase } from '../couch/database.js'
import { expected, isConflict } from '../couch/errors.js'
import { InvalidParameterError } from '../errors.js'
import { NOTICE_PREFIX, NOTICE_TYPE } from '../own-documents.js'
import { atATime } from '../waits/at-a-time.js'
import { RefusedUrlError } from '../webhooks/address.js'
import { Notifier } from '../webhooks/notifier.js'
import type { Instance } from './instance.js'
import type { Transactions } from './transactions.js'

/** Range of ids that holds all notices. */
const NOTICE_RANGE = { from: NOTICE_PREFIX, to: `${NOTICE_PREFIX}\ufff0` } as const

/** Clients that are told at a time of what is overdue. */
const MOST_SENT = 8

const noticeId = (txId: string): string => `${NOTICE_PREFIX}${txId}`

/** Tells clients, at least once, how their restores ended, by one notice a client in the system database. */
export class Outbox {
  readonly #db: CouchDatabase
  readonly #transactions: Transactions
  readonly #events: Instance['events']
  readonly #notifier: Notifier
  /** Milliseconds that the instance which restored has to tell its client. */
  readonly #patience: number
  readonly #shutdown = new AbortController()
  /** Transactions whose clients this instance is telling. */
  readonly #sending = new Set<string>()
  /** When this instance first knew of each notice, on the monotonic clock. */
  #known = new Map<string, number>()

  constructor(
    { events, options }: Pick<Instance, 'events' | 'options'>,
    system: CouchDatabase,
    transactions: Transactions
  ) {
    this.#db = system
    this.#transactions = transactions
    this.#events = events
    this.#notifier = new Notifier(options.clientWebhook)
    this.#patience = 2 * options.timeouts.lease
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

  /** Returns whether the client is to be told. If the look-up fails, assumes so: `send` checks again. */
  async isDue(txId: string): Promise<boolean> {
    try {
      const transaction = await this.#transactions.get(txId)
      return transaction !== null && awaitsNotice(transaction)
    } catch {
      return true
    }
  }

  /** Notes that the transactions' clients are to be told. */
  async add(txIds: readonly string[], client = this.#db.client): Promise<void> {
    const db = this.#db.on(client)
    // A conflict shows that another attempt, or another instance, wrote the same.
    for (const txId of txIds) await db.put({ _id: noticeId(txId), type: NOTICE_TYPE }).catch(unlessConflict)
  }

  /** Tells the client how its restore ended, and removes the notice. */
  async send(txId: string): Promise<void> {
    if (this.#sending.has(txId) || this.#shutdown.signal.aborted) return
    this.#sending.add(txId)
    try {
      const transaction = await this.#transactions.get(txId)
      if (!transaction || !awaitsNotice(transaction) || (await this.#deliver(transaction)))
        await this.#remove(txId)
    } finally {
      this.#sending.delete(txId)
    }
  }

  /** Tells clients whom the instance that restored for them did not tell. */
  async sendOverdue(): Promise<void> {
    const now = performance.now()
    const notices = (await this.#db.rows(NOTICE_RANGE)).map(({ id }) => id.slice(NOTICE_PREFIX.length))
    this.#known = new Map(notices.map((txId) => [txId, this.#known.get(txId) ?? now]))
    const overdue = [...this.#known].filter(([, since]) => now - since >= this.#patience)
    const failures: unknown[] = []
    // One that cannot be sent does not keep others from being sent.
    await atATime(MOST_SENT, overdue, ([txId]) =>
      this.send(txId).catch((error: unknown) => failures.push(error))
    )
    if (failures.length > 0) throw failures[0]
  }

  /** @returns whether that is done; when the server's end cuts it off, an instance that runs later does it */
  async #deliver(transaction: WebhookTransaction): Promise<boolean> {
    const { tx_id: txId } = transaction
    const record = (delivery: WebhookDelivery) =>
      this.#transactions.update(txId, { client_webhook: delivery })
    const delivery = await this.#notifier.deliver(transaction, record, this.#shutdown.signal)
    if (!delivery.delivered && this.#shutdown.signal.aborted) return false
    await record(delivery)
    this.#emit(txId, delivery)
    return true
  }

  #emit(txId: string, { attempts, delivered, last_status: status, last_error }: WebhookDelivery): void {
    const about = { tx_id: txId, attempts }
    const reason = last_error ?? 'unknown'
    this.#events.emit(
      delivered
        ? { type: 'webhook_delivered', ...about, status: status ?? 0 }
        : { type: 'webhook_failed', ...about, ...(status !== undefined && { status }), reason }
    )
  }

  async #remove(txId: string): Promise<void> {
    const notice = await this.#db.get<{ type?: string }>(noticeId(txId))
    if (notice?.type !== NOTICE_TYPE) return
    // Another instance told the client as well.
    await this.#db.delete(notice._id, notice._rev).catch(unlessConflict)
  }

  stop(): void {
    this.#shutdown.abort()
  }

  async close(): Promise<void> {
    await this.#notifier.close()
  }
}

/** Returns whether the client of a transaction that has ended is still to be told. */
const awaitsNotice = ({ client_webhook_url, client_webhook }: WebhookTransaction): boolean =>
  client_webhook_url !== undefined && (client_webhook?.pending ?? client_webhook === undefined)

const unlessConflict = expected(isConflict, undefined)
