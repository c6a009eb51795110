import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ClientLeftError, TooManyRequestsError } from '../errors.js'

/** Replies of one connection that may wait for those before them. */
const MOST_WAITING = 64

const waiting = new WeakMap<Socket, number>()

/** Calls back when a reply can be sent: a pipelined one has no socket until those before it are sent. */
export function whenSendable({ raw }: FastifyReply, call: () => void): void {
  // In HTTP/2, `socket` is never null.
  if (raw.socket === null) raw.once('socket', call)
  else call()
}

/**
 * Waits until a reply can be sent, so that nothing is held before. @throws ClientLeftError, and
 * TooManyRequestsError at once: Node.js stops reading from a connection with enough bytes to send
 */
export async function untilSendable(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  if (reply.raw.socket !== null) return
  const { socket } = request.raw
  const before = waiting.get(socket) ?? 0
  if (before >= MOST_WAITING)
    throw new TooManyRequestsError(`${MOST_WAITING} wait on this connection for the replies before theirs`)
  waiting.set(socket, before + 1)
  try {
    await new Promise<void>((resolve, reject) => {
      whenSendable(reply, resolve)
      // A reply that never had a socket does not emit `close`.
      request.raw.once('close', () => socket.destroyed && reject(new ClientLeftError()))
    })
  } finally {
    waiting.set(socket, (waiting.get(socket) ?? 1) - 1)
  }
}
