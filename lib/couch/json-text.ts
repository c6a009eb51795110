import { JsonScanner, type JsonVisitor } from '../json/scanner.js'
import { asCouchError, STORED_DEPTH } from './json-rows.js'

/**
 * The bytes of an answer's JSON value as they arrive, without the white space around it.
 *
 * @throws CouchError (retryable) when the answer is cut, or is not JSON
 */
export async function* jsonText(body: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
  let pieces: Uint8Array[] = []
  const visitor: JsonVisitor = {
    begin: () => 'stream',
    bytes: (piece) => pieces.push(piece),
    end: () => undefined
  }
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH })
  try {
    for await (const chunk of body) {
      scanner.write(chunk)
      yield* pieces
      pieces = []
    }
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
}
