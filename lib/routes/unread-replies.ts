import { finished, Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { Silence } from '../waits/silence.js'
import { breakOff, cutConnection } from './break-off.js'
import { whenSendable } from './pipelined-replies.js'

/** Cuts off replies that clients do not read. A streamed reply is watched from its end on. */
export class UnreadReplies {
  readonly #idle: number
  readonly #unsent = new Map<FastifyReply, Silence>()

  /** @param idle milliseconds for a reply's last bytes @param deadline cuts off all unsent replies */
  constructor(idle: number, deadline: AbortSignal) {
    this.#idle = idle
    deadline.addEventListener('abort', () => {
      for (const reply of this.#unsent.keys()) cutConnection(reply)
    })
  }

  /** Registers a reply once its request is there, and earlier replies on its connection are sent. */
  begin(reply: FastifyReply): void {
    whenSendable(reply, () => {
      this.#unsent.set(reply, new Silence(this.#idle, () => this.#cut(reply)))
      finished(reply.raw, () => {
        this.#unsent.get(reply)?.end()
        this.#unsent.delete(reply)
      })
    })
  }

  /** Watches a payload, also an error that replaced a stream. */
  watch(reply: FastifyReply, payload: unknown): void {
    whenSendable(reply, () => {
      const silence = this.#unsent.get(reply)
      if (payload instanceof Readable && !payload.closed) payload.once('close', () => silence?.wait())
      else silence?.wait()
    })
  }

  /** Breaks off a reply, and cuts its connection if the client does not take the reset frame of HTTP/2. */
  #cut(reply: FastifyReply): void {
    const silence = new Silence(this.#idle, () => cutConnection(reply))
    this.#unsent.set(reply, silence)
    silence.wait()
    breakOff(reply)
  }
}
