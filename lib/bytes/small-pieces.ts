import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'

/** Bytes below which pieces are joined: each takes some 400 bytes of objects, whatever its length. */
const SMALL = 1024
/** Bytes that are joined to one piece at most. */
const BLOCK = 4096
/** Small pieces of requests in one turn of the event loop: parsing one takes a microsecond or more. */
const MOST = 4096

/** Joins the small pieces of a request's body that nobody has begun to read, see {@link joinSmallPieces}. */
export function joinPiecesOfRequest(body: IncomingMessage | Http2ServerRequest): void {
  // A request of HTTP/2 gets what its stream has queued.
  joinSmallPieces('stream' in body ? body.stream : body, MOST)
}

/**
 * Joins small pieces from a parser, at most until the turn of the event loop ends: single bytes would fill
 * the body's queue, which has a bound in bytes only, with tens of thousands of buffers.
 * @param most small pieces that stop the parser; not for undici's, which stops amid what it read, and copies
 */
export function joinSmallPieces(body: Readable, most = Number.POSITIVE_INFINITY): void {
  const joiner = new Joiner(body, most)
  body.push = (piece: Piece, encoding?: BufferEncoding) => joiner.push(piece, encoding)
}

type Piece = Uint8Array | string | null

const isSmall = (piece: Piece): piece is Uint8Array =>
  typeof piece === 'object' && piece !== null && piece.length > 0 && piece.length < SMALL

class Joiner {
  readonly #body: Readable
  readonly #push: Readable['push']
  readonly #most: number
  #block = Buffer.alloc(0)
  /** Where in the block the bytes begin that were not passed on, and where they end. */
  #from = 0
  #to = 0
  /** Small pieces since the last flush. */
  #pieces = 0

  constructor(body: Readable, most: number) {
    this.#body = body
    this.#most = most
    this.#push = body.push.bind(body)
  }

  /** Replaces `Readable.push`. @returns whether the parser may go on; else the next flush resumes it */
  push(piece: Piece, encoding?: BufferEncoding): boolean {
    if (!isSmall(piece)) {
      this.#passOn()
      return this.#push(piece, encoding)
    }
    if (this.#pieces === 0) flushLater(this)
    this.#pieces++
    this.#join(piece)
    const { readableLength, readableHighWaterMark } = this.#body
    return this.#pieces < this.#most && readableLength + this.#to - this.#from < readableHighWaterMark
  }

  /** Passes on what was joined. @returns how many pieces it was */
  flush(): number {
    const pieces = this.#pieces
    this.#pieces = 0
    this.#passOn()
    return pieces
  }

  #join(piece: Uint8Array): void {
    if (this.#to + piece.length > this.#block.length) {
      this.#passOn()
      this.#block = Buffer.allocUnsafeSlow(BLOCK)
      this.#from = 0
      this.#to = 0
    }
    this.#block.set(piece, this.#to)
    this.#to += piece.length
  }

  #passOn(): void {
    const joined = this.#block.subarray(this.#from, this.#to)
    this.#from = this.#to
    if (joined.length > 0 && !this.#body.destroyed) this.#push(joined)
  }
}

/** Joiners with small pieces, first come first. */
const waiting: Joiner[] = []
let begun = false

function flushLater(joiner: Joiner): void {
  waiting.push(joiner)
  if (!begun) setImmediate(flushSome)
  begun = true
}

/** Flushes {@link MOST} pieces: not all parsers that were stopped go on in the same turn. */
function flushSome(): void {
  for (let pieces = 0; pieces < MOST && waiting.length > 0; ) pieces += (waiting.shift() as Joiner).flush()
  begun = waiting.length > 0
  if (begun) setImmediate(flushSome)
}
