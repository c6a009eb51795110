import type { Socket } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ClientLeftError, TooManyRequestsError } from '../errors.js'

/** Replies of one connection that may wait for those before them. */
const MOST_WAITING = 64

const waiting = new WeakMap<Socket, number>()

/**
 * Calls back when a reply can be sent. HTTP/1.1 sends the replies of a connection in the order of their requests: one to
 * a pipelined request has no socket until those before it have been sent.
 */
export function inTurn({ raw }: FastifyReply, call: () => void): void {
  // HTTP/2 has none of its own, but not null.
  if (raw.socket === null) raw.once('socket', call)
  else call()
}

/**
 * Resolves when a reply can be sent, so that nothing is done and held for it before: a small packet holds a thousand
 * requests.
 * @throws ClientLeftError, and TooManyRequestsError: that is replied at once, and Node.js stops reading from a connection
 * with enough bytes to send
 */
export async function turnOf(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  if (reply.raw.socket !== null) return
  const { socket } = request.raw
  const before = waiting.get(socket) ?? 0
  if (before >= MOST_WAITING)
    throw new TooManyRequestsError(`${MOST_WAITING} wait on this connection for the replies before theirs`)
  waiting.set(socket, before + 1)
  try {
    await new Promise<void>((resolve, reject) => {
      inTurn(reply, resolve)
      // The reply itself does not close when it has had no socket.
      request.raw.once('close', () => socket.destroyed && reject(new ClientLeftError()))
    })
  } finally {
    waiting.set(socket, (waiting.get(socket) ?? 1) - 1)
  }
}
