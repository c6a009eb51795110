import { finished, Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { Silence } from '../silence.js'
import { breakOff, cutConnection } from './break-off.js'

/** Cuts off replies whose clients do not take them. What a stream still has to give is its own matter. */
export class UnreadReplies {
  readonly #idle: number
  readonly #unsent = new Set<FastifyReply>()

  /**
   * @param idle milliseconds that the last bytes of a reply may take
   * @param deadline cuts off all replies that are not sent yet
   */
  constructor(idle: number, deadline: AbortSignal) {
    this.#idle = idle
    deadline.addEventListener('abort', () => {
      for (const reply of this.#unsent) cutConnection(reply)
    })
  }

  watch(reply: FastifyReply, payload: unknown): void {
    const silence = new Silence(this.#idle, () => this.#cut(reply))
    this.#unsent.add(reply)
    finished(reply.raw, () => {
      silence.end()
      this.#unsent.delete(reply)
    })
    if (payload instanceof Readable) payload.once('close', () => silence.wait())
    else silence.wait()
  }

  /** A stream of HTTP/2 whose connection takes nothing cannot even be reset. */
  #cut(reply: FastifyReply): void {
    const silence = new Silence(this.#idle, () => cutConnection(reply))
    finished(reply.raw, () => silence.end())
    silence.wait()
    breakOff(reply)
  }
}
