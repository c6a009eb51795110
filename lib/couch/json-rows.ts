import { GrowingBuffer, Pieces } from '../bytes/growing-buffer.js'
import {
  ELEMENT,
  type JsonAction,
  type JsonPath,
  JsonScanner,
  JsonSyntaxError,
  type JsonVisitor
} from '../json/scanner.js'
import { turnAfter } from '../waits/steps.js'
import { CouchError } from './errors.js'

/** CouchDB stores documents however deep they nest. */
export const STORED_DEPTH = Number.POSITIVE_INFINITY

/** Bytes of a row: a document, of 64 MiB in earlier versions of CouchDB, or all its conflicting leaves. */
const MAX_ROW = 64 * 1024 * 1024

/** Returns whether an answer had a row that is not held in memory: it can only be read in another way. */
export const isLongRow = (error: unknown): boolean => error instanceof CouchError && error.error === LONG_ROW
const LONG_ROW = 'too_large'

const longRow = () =>
  new CouchError('answer', { error: LONG_ROW, reason: `a row takes more than ${MAX_ROW} bytes` })

/** Makes memory for rows that come in several pieces, one at a time. */
export const rowMemory = () => new GrowingBuffer(MAX_ROW, longRow)

/** The small members beside the rows, such as `last_seq`. */
export type Trailer = Record<string, unknown>

/**
 * Reads an answer `{"<member>":[row,row,...],...}` row by row, as the bytes that CouchDB sent.
 * @param trailer receives the other members
 * @param memory holds rows that come in several pieces, which are valid until the next rows are asked for
 * @throws CouchError; retryable, unless a row takes more than 64 MiB
 */
export async function* jsonRows(
  body: AsyncIterable<Buffer>,
  member: string,
  trailer: Trailer = {},
  memory?: GrowingBuffer
): AsyncGenerator<Uint8Array[]> {
  const visitor = new RowVisitor(member, trailer, memory)
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH })
  try {
    for await (const chunk of body) {
      scanner.write(chunk)
      if (visitor.rows.length > 0) {
        const { rows } = visitor
        visitor.rows = []
        // A long row was put together from pieces. It comes first, since it ends in this piece.
        const pause = turnAfter(rows[0])
        if (pause) await pause
        yield rows
      }
    }
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
  if (!visitor.found) {
    throw new CouchError('answer', { error: 'bad_answer', reason: `no "${member}" in it`, retryable: true })
  }
}

/** Reads one string member of an answer, if any, and drops the rest. @throws CouchError (retryable) */
export async function stringMember(body: AsyncIterable<Buffer>, member: string): Promise<string | undefined> {
  const pieces: Uint8Array[] = []
  const values: string[] = []
  const visitor: JsonVisitor = {
    begin(path, kind) {
      if (path.length === 0) return 'enter'
      return path[0] === member && kind === 'string' ? 'stream' : 'skip'
    },
    bytes(piece) {
      pieces.push(Buffer.from(piece))
    },
    end(path) {
      if (path.length === 1 && pieces.length > 0)
        values.push(JSON.parse(Buffer.concat(pieces.splice(0)).toString()))
    }
  }
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH })
  try {
    for await (const chunk of body) {
      scanner.write(chunk)
      if (values.length > 0) return values[0]
    }
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
  return undefined
}

/** Turns what is wrong with an answer's JSON into a fault of the answer; returns other errors as they are. */
export function asCouchError(error: unknown): unknown {
  if (!(error instanceof JsonSyntaxError)) return error
  return new CouchError('answer', {
    error: error.truncated ? 'truncated' : 'bad_answer',
    reason: error.message,
    retryable: true,
    cause: error
  })
}

class RowVisitor implements JsonVisitor {
  rows: Uint8Array[] = []
  found = false
  readonly #member: string
  readonly #trailer: Trailer
  readonly #pieces: Pieces

  constructor(member: string, trailer: Trailer, memory: GrowingBuffer | undefined) {
    this.#member = member
    this.#trailer = trailer
    this.#pieces = new Pieces(memory)
  }

  begin(path: JsonPath): JsonAction {
    if (path.length === 0) return 'enter'
    if (path.length === 1 && path[0] === this.#member) {
      this.found = true
      return 'enter'
    }
    return 'stream'
  }

  bytes(piece: Uint8Array): void {
    if (this.#pieces.length + piece.length > MAX_ROW) throw longRow()
    // Rows are taken after each chunk, and a value has one piece in each: none that waits lies in the memory.
    this.#pieces.add(piece)
  }

  end(path: JsonPath): void {
    if (this.#pieces.length === 0) return
    const value = this.#pieces.take()
    if (path.length === 2 && path[1] === ELEMENT) this.rows.push(value)
    else if (path.length === 1) this.#trailer[path[0]] = JSON.parse(value.toString())
  }
}
