import { constants, type Http2ServerResponse } from 'node:http2'
import type { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

/** Headers that tell of the body of a backup. */
const OF_THE_BODY = ['accept-ranges', 'content-encoding', 'content-range', 'etag']

/** Removes the headers of a body that will not be sent. */
export function withoutBody(reply: FastifyReply): void {
  for (const name of OF_THE_BODY) reply.removeHeader(name)
}

/** Ends the reply and its body with each other: streams of the host's hooks may pass on neither event. */
export function breakOffWith(body: Readable, reply: FastifyReply): void {
  breakOffAfter(body, reply)
  reply.raw.once('close', () => body.destroy())
}

/** Cuts off the reply when a body of it fails, since Fastify ends it normally in HTTP/2. */
export function breakOffAfter(body: Readable, reply: FastifyReply): void {
  body.once('error', () => {
    if (reply.raw.headersSent) breakOff(reply)
    // Fastify replies with the error.
    else withoutBody(reply)
  })
}

/** Cuts off a reply so that its client sees that it is incomplete. */
export function breakOff({ raw }: FastifyReply): void {
  const stream = http2StreamOf(raw)
  if (stream) stream.close(constants.NGHTTP2_INTERNAL_ERROR)
  else raw.destroy()
}

/** Cuts a reply's connection, with all replies on it. */
export function cutConnection({ raw }: FastifyReply): void {
  const session = http2StreamOf(raw)?.session
  // A closing session waits until its socket has taken everything. `once` of its proxy returns the socket.
  if (session && !session.destroyed) session.socket.once('close', () => undefined).destroy()
  else raw.destroy()
}

const http2StreamOf = (raw: FastifyReply['raw']) =>
  'stream' in raw ? (raw as unknown as Http2ServerResponse).stream : undefined
