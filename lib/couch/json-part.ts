import { type JsonPath, JsonScanner, type JsonVisitor } from '../json/scanner.js'
import { CouchError } from './errors.js'
import { asCouchError, STORED_DEPTH } from './json-rows.js'

/** Names of attachments and members are no longer than a document. */
const MAX_KEY = 64 * 1024 * 1024
/** Bytes of what an answer says in place of the part. */
const MAX_REFUSAL = 64 * 1024

/**
 * Yields the bytes of one value inside an answer as they arrive.
 *
 * @param path where the value stands
 * @param refused where the answer says why there is none
 * @returns `undefined`, or, where the value did not come, what stands at `refused`: an empty object when nothing does
 * @throws CouchError (retryable) when the answer is cut, or is not JSON
 */
export async function* jsonPart(
  body: AsyncIterable<Buffer>,
  path: JsonPath,
  refused: JsonPath
): AsyncGenerator<Uint8Array, Uint8Array | undefined> {
  const visitor = new PartVisitor(path, refused)
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH, maxKey: MAX_KEY })
  try {
    for await (const chunk of body) {
      scanner.write(chunk)
      yield* visitor.take()
    }
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
  return visitor.found ? undefined : visitor.refusal
}

class PartVisitor implements JsonVisitor {
  found = false
  readonly #path: JsonPath
  readonly #refused: JsonPath
  #pieces: Uint8Array[] = []
  #refusal: Buffer[] = []
  #refusalBytes = 0

  constructor(path: JsonPath, refused: JsonPath) {
    this.#path = path
    this.#refused = refused
  }

  get refusal(): Uint8Array {
    return this.#refusal.length > 0 ? Buffer.concat(this.#refusal) : Buffer.from('{"error":"not_found"}')
  }

  take(): Uint8Array[] {
    const pieces = this.#pieces
    this.#pieces = []
    return pieces
  }

  begin(path: JsonPath): 'enter' | 'stream' | 'skip' {
    if (leadsTo(path, this.#path)) {
      if (path.length < this.#path.length) return 'enter'
      if (this.found)
        throw new CouchError('answer', { error: 'bad_answer', reason: 'a part of it came twice' })
      this.found = true
      return 'stream'
    }
    return path.length === this.#refused.length && leadsTo(path, this.#refused) ? 'stream' : 'skip'
  }

  bytes(piece: Uint8Array, path: JsonPath): void {
    if (leadsTo(path, this.#path)) {
      this.#pieces.push(piece)
      return
    }
    this.#refusalBytes += piece.length
    if (this.#refusalBytes > MAX_REFUSAL)
      throw new CouchError('answer', { error: 'bad_answer', reason: 'an error in it is too long' })
    this.#refusal.push(Buffer.from(piece))
  }

  end(): void {}
}

const leadsTo = (path: JsonPath, wanted: JsonPath) => path.every((step, i) => step === wanted[i])
