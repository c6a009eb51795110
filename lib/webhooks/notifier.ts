import { setTimeout as sleep } from 'node:timers/promises'
import { Agent } from 'undici'
import type { ClientWebhookOptions } from '../../types/options.js'
import type { WebhookDelivery, WebhookTransaction } from '../../types/webhooks.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { discard } from '../bytes/discard.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import { within } from '../waits/within.js'
import { guardedLookup, parseWebhookUrl, RefusedUrlError } from './address.js'

const ATTEMPTS = 3
const TIMEOUT = 10_000
const FIRST_WAIT = 1000

/** Checks clients' webhook URLs, and POSTs finished transactions to them. */
export class Notifier {
  readonly #options: ClientWebhookOptions
  readonly #agent: Agent

  constructor(options: ClientWebhookOptions = {}) {
    this.#options = options
    this.#agent = new Agent({
      connect: { lookup: guardedLookup, timeout: options.timeout ?? TIMEOUT },
      pipelining: 0
    })
  }

  /** @throws RefusedUrlError */
  async check(text: string): Promise<URL> {
    const url = parseWebhookUrl(text)
    const { allow, timeout = TIMEOUT } = this.#options
    const late = () => new RefusedUrlError('could not be checked in time')
    if (allow && !(await within(timeout, late, async () => allow(url)))) {
      throw new RefusedUrlError('is not allowed by this server')
    }
    return url
  }

  /** POSTs with retries, and returns how that ended; throws only what `record` does before an attempt. */
  async deliver(
    transaction: WebhookTransaction,
    record: (delivery: WebhookDelivery) => Promise<unknown>,
    signal?: AbortSignal
  ): Promise<WebhookDelivery> {
    const { client_webhook_url: text, client_webhook: before, ...body } = transaction
    const { pending: _, ...known } = before ?? { attempts: 0, delivered: false }
    let delivery: WebhookDelivery = known
    if (text === undefined) return delivery
    const attempts = this.#options.attempts ?? ATTEMPTS
    for (let attempt = 1; ; attempt++) {
      delivery.attempts++
      await record({ ...delivery, pending: true })
      const { retry, ...outcome } = await this.#attempt(text, body, signal)
      const { last_error: _, ...earlier } = delivery
      delivery = { ...earlier, ...outcome }
      if (!retry || attempt >= attempts || signal?.aborted) return delivery
      await sleep(FIRST_WAIT * 4 ** (attempt - 1), undefined, { signal }).catch(() => undefined)
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  async #attempt(
    text: string,
    body: object,
    signal: AbortSignal | undefined
  ): Promise<Omit<WebhookDelivery, 'attempts'> & { retry: boolean }> {
    try {
      const status = await this.#post(await this.check(text), body, signal)
      if (status >= 200 && status < 300) return { delivered: true, last_status: status, retry: false }
      const retry = status >= 500 || status === 429 || status === 408
      return { delivered: false, last_status: status, last_error: `the receiver answered ${status}`, retry }
    } catch (error) {
      const refused = error instanceof RefusedUrlError || (error as Error).cause instanceof RefusedUrlError
      return { delivered: false, last_error: describe(error), retry: !refused }
    }
  }

  async #post(url: URL, body: object, signal: AbortSignal | undefined): Promise<number> {
    const abort = new LinkedAbort()
      .follow(signal)
      .after(this.#options.timeout ?? TIMEOUT, () => new Error('no answer in time'))
    try {
      const answer = await this.#agent.request({
        origin: url.origin,
        path: url.pathname + url.search,
        method: 'POST',
        headers: { 'content-type': 'application/json', 'user-agent': 'fastify-couchdb-backups' },
        body: JSON.stringify(body),
        signal: abort.signal
      })
      discard(answer.body)
      return answer.statusCode
    } finally {
      abort.release()
    }
  }
}

/** Omits the URL, which may carry secrets. */
function describe(error: unknown): string {
  if (error instanceof RefusedUrlError) return `the URL ${error.message}`
  const { code, message, name } = error as NodeJS.ErrnoException
  return cutText(code ?? (name === 'Error' ? message : name), MOST.reason)
}
