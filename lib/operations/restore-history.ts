import type { ShownTransaction } from '../../types/webhooks.js'
import type { Listener } from '../observe/event-stream.js'
import type { Transactions } from './transactions.js'

/** Restores that are remembered. */
const MOST = 100
/** Milliseconds after which the store is asked again: it may have to read all its documents. */
const ASK_AGAIN = 5 * 60_000

/** Knows the latest restores: those that this instance began, and those that the host's store lists. */
export class RestoreHistory {
  /** Ids of transactions, newest first. */
  #ids: string[] = []
  #askedAt = Number.NEGATIVE_INFINITY

  readonly listener: Listener = (event) => {
    if (event.type === 'restore_started' && !event.dryRun) this.#remember([event.tx_id, ...this.#ids])
  }

  /** Returns the transactions of the latest restores, newest first, without dry runs. */
  async latest(transactions: Transactions, limit: number): Promise<ShownTransaction[]> {
    await this.#ask(transactions)
    const known = await Promise.all(this.#ids.slice(0, limit).map((id) => transactions.get(id)))
    return known
      .filter((transaction) => transaction !== null)
      .map(shown)
      .sort((a, b) => b.ts_started - a.ts_started)
  }

  async #ask(transactions: Transactions): Promise<void> {
    const now = performance.now()
    if (now - this.#askedAt < ASK_AGAIN) return
    this.#askedAt = now
    try {
      const listed = await transactions.list(MOST)
      const own = this.#ids.filter((id) => !listed.includes(id))
      this.#remember([...own, ...listed])
    } catch (error) {
      this.#askedAt = Number.NEGATIVE_INFINITY
      throw error
    }
  }

  #remember(ids: readonly string[]): void {
    this.#ids = ids.slice(0, MOST)
  }
}

/** Returns a transaction without the client's webhook, whose URL may hold a secret. */
export function shown({
  client_webhook_url: _url,
  ...transaction
}: ShownTransaction & {
  client_webhook_url?: string
}): ShownTransaction {
  return transaction
}
