import { constants, type Http2ServerResponse } from 'node:http2'
import type { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

/** Headers that tell of the body of a backup. */
const OF_THE_BODY = ['accept-ranges', 'content-encoding', 'content-range', 'etag']

/** Removes what the reply tells of a body that will not be sent. */
export function withoutBody(reply: FastifyReply): void {
  for (const name of OF_THE_BODY) reply.removeHeader(name)
}

/**
 * Cuts off the reply when the body that it sends fails, and ends the body with the reply. Fastify destroys the response,
 * which HTTP/2 takes for its end: clients would hold a part for the whole. Hooks of the host may send the body through
 * streams that pass on neither its failure nor their own end, so the body itself is watched.
 */
export function breakOffWith(body: Readable, reply: FastifyReply): void {
  body.once('error', () => {
    if (reply.raw.headersSent) breakOff(reply)
    // Fastify replies with the error.
    else withoutBody(reply)
  })
  // Nor may they pass on that the client has left.
  reply.raw.once('close', () => body.destroy())
}

/** Cuts off a reply so that its client sees that it is not whole. */
export function breakOff({ raw }: FastifyReply): void {
  const stream = http2StreamOf(raw)
  if (stream) stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  else raw.destroy()
}

/** Cuts the connection of a reply, other replies on it included. */
export function cutConnection({ raw }: FastifyReply): void {
  const session = http2StreamOf(raw)?.session
  // A session that is closing waits until its socket has taken everything. The socket itself is had from its listeners.
  if (session && !session.destroyed) session.socket.once('close', () => undefined).destroy()
  else raw.destroy()
}

const http2StreamOf = (raw: FastifyReply['raw']) =>
  'stream' in raw ? (raw as unknown as Http2ServerResponse).stream : undefined
