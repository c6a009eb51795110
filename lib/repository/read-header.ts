import type { CouchDatabase } from '../couch/database.js'
import { CouchError, isMissing } from '../couch/errors.js'
import { asCouchError, STORED_DEPTH } from '../couch/json-rows.js'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  type JsonVisitor
} from '../json/scanner.js'
import { BACKUP_TYPE } from '../own-documents.js'
import { inSharedTurns } from '../waits/steps.js'
import type { Head } from './layout.js'

/** Bytes of captured members: headers of this package stay far below. */
const MAX_HEAD = 16 * 1024 * 1024

/** Reads a header, in bounded memory also where the documents are inside. `null`: there is none. */
export async function readHeader(db: CouchDatabase, id: string): Promise<Head | null> {
  const head = await readInPlace(db, id)
  return head?.type === BACKUP_TYPE ? head : null
}

/** Reads whatever document has the id of a header, as {@link readHeader} does. `null`: there is none. */
export async function readInPlace(db: CouchDatabase, id: string): Promise<Head | null> {
  try {
    const head = await db.readStream(id, readHead, { att_encoding_info: true })
    if (head._id !== id || typeof head._rev !== 'string') return null
    return { ...head, dbs: head.dbs ?? {} } as Head
  } catch (error) {
    if (isMissing(error)) return null
    throw error
  }
}

async function readHead(body: AsyncIterable<Buffer>): Promise<Partial<Head>> {
  const visitor = new HeadVisitor()
  const scanner = new JsonScanner(visitor, { maxDepth: STORED_DEPTH })
  try {
    for await (const piece of inSharedTurns(body)) scanner.write(piece)
    scanner.end()
  } catch (error) {
    throw asCouchError(error)
  }
  return visitor.head
}

/** Keeps the members of a backup's header, except the documents of a legacy one. */
class HeadVisitor implements JsonVisitor {
  readonly head: Partial<Head> = Object.create(null)
  #pieces: Buffer[] = []
  #size = 0

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length === 0) return 'enter'
    if (path[0] !== 'dbs') return 'stream'
    if (path.length < 3 && kind === 'object') {
      if (path.length === 1) this.head.dbs = {}
      else (this.head.dbs as Record<string, unknown>)[path[1]] = {}
      return 'enter'
    }
    return path[2] === 'docs' || path[2] === 'compressed_docs' ? 'skip' : 'stream'
  }

  bytes(piece: Uint8Array): void {
    this.#size += piece.length
    if (this.#size > MAX_HEAD) {
      throw new CouchError('backup header', { error: 'bad_answer', reason: 'it is too large' })
    }
    this.#pieces.push(Buffer.from(piece))
  }

  end(path: JsonPath): void {
    if (this.#pieces.length === 0) return
    const value: unknown = JSON.parse(Buffer.concat(this.#pieces).toString())
    this.#pieces = []
    if (path.length === 1) this.head[path[0]] = value
    else if (path.length === 3)
      (this.head.dbs as Record<string, Record<string, unknown>>)[path[1]][path[2]] = value
  }
}
