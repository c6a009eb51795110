import { type JsonPath, JsonScanner, type JsonVisitor } from '../json/scanner.js'
import { CouchError } from './errors.js'
import { asCouchError, STORED_DEPTH } from './json-rows.js'

/** Names of attachments and members are no longer than a document. */
const MAX_KEY = 64 * 1024 * 1024
/** Bytes of an answer's refusal in place of the part. */
const MAX_REFUSAL = 64 * 1024

/**
 * Yields the bytes of the value at `path` as they arrive. @returns `undefined`, or, without the value, what
 * stands at `refused`, by default an empty object. @throws CouchError (retryable) if it is cut or no JSON
 */
export async function* jsonPart(
  body: AsyncIterable<Buffer>,
  path: JsonPath,
  refused: JsonPath
): AsyncGenerator<Uint8Array, Uint8Array | undefined> {
  let pieces: Uint8Array[] = []
  const refusal: Buffer[] = []
  let refusalBytes = 0
  let found = false
  const visitor: JsonVisitor = {
    begin(at) {
      if (!leadsTo(at, path)) return at.length === refused.length && leadsTo(at, refused) ? 'stream' : 'skip'
      if (at.length < path.length) return 'enter'
      if (found) throw badAnswer('a part of it came twice')
      found = true
      return 'stream'
    },
    bytes(piece, at) {
      if (leadsTo(at, path)) {
        pieces.push(piece)
        return
      }
      refusalBytes += piece.length
      if (refusalBytes > MAX_REFUSAL) throw badAnswer('an error in it is too long')
      refusal.push(Buffer.from(piece))
    },
    end() {}
  }
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH, maxKey: MAX_KEY })
  try {
    for await (const chunk of body) {
      scanner.write(chunk)
      const arrived = pieces
      pieces = []
      yield* arrived
    }
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
  if (found) return undefined
  return refusal.length > 0 ? Buffer.concat(refusal) : Buffer.from('{"error":"not_found"}')
}

const badAnswer = (reason: string) => new CouchError('answer', { error: 'bad_answer', reason })

const leadsTo = (path: JsonPath, wanted: JsonPath) => path.every((step, i) => step === wanted[i])
