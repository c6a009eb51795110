import { isUtf8 } from 'node:buffer'
import { setTimeout as sleep } from 'node:timers/promises'
import { GrowingBuffer, Pieces } from '../bytes/growing-buffer.js'
import {
  ELEMENT,
  type JsonAction,
  type JsonKind,
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

/** Milliseconds in which small pieces of a long answer gather: CouchDB sends a row or two, and each has a long way. */
const GATHER = 6
/** Bytes of a piece that is small, and of an answer that is long. */
const SMALL = 16 * 1024
const LONG_ANSWER = 128 * 1024

const NEWLINE = 0x0a
const RETURN = 0x0d
const COMMA = 0x2c
const CLOSE = 0x7d

const longRow = () =>
  new CouchError('answer', { error: LONG_ROW, reason: `a row takes more than ${MAX_ROW} bytes` })

/** Makes memory for rows that come in several pieces, one at a time. */
export const rowMemory = () => new GrowingBuffer(MAX_ROW, longRow)

/** Reads rows of one kind. */
export interface RowReader<T> {
  /**
   * Reads a row that stands on a line by itself, as CouchDB writes rows, and checks its bytes.
   * @param bytes valid UTF-8 @returns `undefined` where anything is rare or wrong
   */
  line?(bytes: Buffer, from: number, to: number): T | undefined
  /** Reads a row that is known to be JSON. */
  row(bytes: Buffer): T
}

/**
 * An answer `{"<member>":[row,row,...],...}`, whose rows are read in groups, once, from the bytes that CouchDB sent.
 * Lets others run after long rows. Reading throws CouchError; retryable, unless a row takes more than 64 MiB.
 */
export class RowAnswer<T> implements AsyncIterable<T[]> {
  readonly #body: AsyncIterable<Buffer>
  readonly #member: string
  readonly #rows: Rows<T>

  /** @param memory holds rows that come in several pieces, which are valid until the next rows are asked for */
  constructor(body: AsyncIterable<Buffer>, member: string, reader: RowReader<T>, memory?: GrowingBuffer) {
    this.#body = body
    this.#member = member
    this.#rows = new Rows(member, reader, memory)
  }

  /** The small members beside the rows, such as `last_seq`; those after the rows are known when these are read. */
  get trailer(): Readonly<Record<string, unknown>> {
    return this.#rows.trailer
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T[]> {
    const rows = this.#rows
    let received = 0
    try {
      for await (const piece of this.#body) {
        rows.write(piece)
        if (rows.count > 0) {
          const pause = turnAfter({ length: rows.longest })
          if (pause) await pause
          yield rows.take()
        }
        received += piece.length
        if (piece.length < SMALL && received > LONG_ANSWER) await sleep(GATHER)
      }
      rows.end()
    } catch (error) {
      throw asCouchError(error)
    }
    if (!rows.found) {
      const reason = `no "${this.#member}" in it`
      throw new CouchError('answer', { error: 'bad_answer', reason, retryable: true })
    }
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

/**
 * Finds the rows of an answer. CouchDB writes each on a line by itself, and no line feed inside it: such lines are read
 * by {@link RowReader.line}. What is between them, and what it does not take, goes through the scanner.
 */
class Rows<T> {
  /** Bytes of the longest row since rows were taken. */
  longest = 0
  readonly #reader: RowReader<T>
  readonly #visitor: RowVisitor
  readonly #scanner: JsonScanner
  #read: T[] = []

  constructor(member: string, reader: RowReader<T>, memory: GrowingBuffer | undefined) {
    this.#reader = reader
    this.#visitor = new RowVisitor(member, this, memory)
    this.#scanner = new JsonScanner(this.#visitor, { maxDepth: STORED_DEPTH })
  }

  get found(): boolean {
    return this.#visitor.found
  }

  get trailer(): Readonly<Record<string, unknown>> {
    return this.#visitor.trailer
  }

  get count(): number {
    return this.#read.length
  }

  take(): T[] {
    const read = this.#read
    this.#read = []
    this.longest = 0
    return read
  }

  write(piece: Buffer): void {
    let at = 0
    if (this.#reader.line) {
      // A piece that begins behind a row has the comma first.
      if (!this.#scanner.isBeforeElement) at = this.#scan(piece, 0, piece.indexOf(NEWLINE) + 1)
      const end = piece.at(-1) === CLOSE ? piece.length : piece.lastIndexOf(NEWLINE) + 1
      if (at < end && isUtf8(piece.subarray(at, end))) at = this.#readLines(piece, at, end)
    }
    this.#scan(piece, at, piece.length)
  }

  end(): void {
    this.#scanner.end()
  }

  #scan(piece: Buffer, from: number, to: number): number {
    if (from < to) this.#scanner.write(piece.subarray(from, to))
    return to
  }

  #readLines(piece: Buffer, from: number, to: number): number {
    for (let at = from; at < to; ) {
      const end = piece.indexOf(NEWLINE, at) + 1 || to
      if (!this.#scanner.isBeforeElement || !this.#readLine(piece, at, end)) this.#scan(piece, at, end)
      at = end
    }
    return to
  }

  /** Reads a line that holds a row, and the comma after it unless that is in the next piece. */
  #readLine(piece: Buffer, from: number, to: number): boolean {
    let end = to
    while (piece[end - 1] === NEWLINE || piece[end - 1] === RETURN) end--
    const hasComma = piece[end - 1] === COMMA
    const row = this.#reader.line?.(piece, from, hasComma ? end - 1 : end)
    if (row === undefined) return false
    this.#scanner.passElement(to - from, hasComma)
    this.#add(row, to - from)
    return true
  }

  /** Adds a row from the scanner. */
  add(row: Buffer): void {
    this.#add(this.#reader.row(row), row.length)
  }

  #add(row: T, length: number): void {
    this.#read.push(row)
    this.longest = Math.max(this.longest, length)
  }
}

class RowVisitor implements JsonVisitor {
  found = false
  readonly trailer: Record<string, unknown> = {}
  readonly #member: string
  /** The rows that wait, whose memory must stay as it is. */
  readonly #rows: { add(row: Buffer): void; count: number }
  readonly #pieces: Pieces

  constructor(
    member: string,
    rows: { add(row: Buffer): void; count: number },
    memory: GrowingBuffer | undefined
  ) {
    this.#member = member
    this.#rows = rows
    this.#pieces = new Pieces(memory)
  }

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length === 0) return kind === 'object' ? 'enter' : 'skip'
    if (path.length === 1 && path[0] === this.#member) {
      this.found = true
      return 'enter'
    }
    return 'stream'
  }

  bytes(piece: Uint8Array): void {
    if (this.#pieces.length + piece.length > MAX_ROW) throw longRow()
    this.#pieces.add(piece, this.#rows.count === 0)
  }

  end(path: JsonPath): void {
    if (this.#pieces.length === 0) return
    const value = this.#pieces.take()
    if (path.length === 2 && path[1] === ELEMENT) this.#rows.add(value)
    else if (path.length === 1) this.trailer[path[0]] = JSON.parse(value.toString())
  }
}
