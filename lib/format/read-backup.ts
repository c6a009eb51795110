import { createInflate } from 'node:zlib'
import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { GrowingBuffer, Pieces } from '../bytes/growing-buffer.js'
import { InflateError, Inflater } from '../bytes/inflater.js'
import { utf8Text } from '../bytes/utf8-text.js'
import { databaseOfKey } from '../databases.js'
import { InvalidBackupError, TooLargeError } from '../errors.js'
import { InvalidDocumentError, LARGE_DOCUMENT } from '../json/document.js'
import {
  type JsonAction,
  JsonDepthError,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  JsonSyntaxError,
  type JsonVisitor
} from '../json/scanner.js'
import { inSharedTurns } from '../waits/steps.js'
import { type AboutDatabase, isAbout } from './about-database.js'

/** The contents of a backup in JSON, in their order. Bytes are valid until the next items are asked for. */
export type BackupItem =
  | { kind: 'member'; name: string; value: unknown }
  | { kind: 'database'; database: LogicalDatabase; key: string }
  | { kind: 'about'; database: LogicalDatabase; where: string; name: keyof AboutDatabase; value: unknown }
  | { kind: 'document'; database: LogicalDatabase; where: string; bytes: Buffer }
  | { kind: 'piece'; database: LogicalDatabase; where: string; bytes: Uint8Array; last: boolean }

export interface ReadBackupOptions {
  names: DatabaseNames
  /** Bytes that the `compressed_docs` of all databases together may inflate to. */
  inflatedBytes: number
}

/** Members that are not read. Clients of athena sign what they send with `authorize`. */
const IGNORED = new Set(['_attachments', 'authorize', 'storage'])
const MEMBERS = new Set([
  '_id',
  '_rev',
  'added_bytes',
  'backup_version',
  'base',
  'chain_length',
  'client_webhook_url',
  'doc_count',
  'elapsed',
  'end_timestamp',
  'error',
  'ibp_versions',
  'id',
  'in_progress',
  'requester',
  'sealed',
  'missing_databases',
  'note',
  'protected',
  'start_timestamp',
  'type',
  'unreadable_count'
])
const DATABASE_MEMBERS = new Set([
  'added_bytes',
  'base',
  'conflict_count',
  'copies',
  'doc_count',
  'elapsed',
  'finish_timestamp',
  'full_reason',
  'last_sequence',
  'new_chunks',
  'raw_bytes',
  'reused_chunks',
  'start_timestamp',
  'stored_bytes',
  'wasted_bytes'
])
const MAX_MEMBER = 256 * 1024

/**
 * Reads a backup in JSON of any form, documents inline or in `compressed_docs` (base64 of a deflated array),
 * in bounded memory. @throws InvalidBackupError (400, naming the field or the offset), TooLargeError (413)
 */
export async function* readBackup(
  body: AsyncIterable<Uint8Array>,
  options: ReadBackupOptions
): AsyncGenerator<BackupItem[]> {
  const visitor = new BackupVisitor(options.names)
  const scanner = new JsonScanner(visitor)
  const budget = new InflateBudget(options.inflatedBytes)
  let inflating: CompressedDocuments | undefined
  try {
    for await (const piece of inSharedTurns(utf8Of(body))) {
      scanner.write(piece)
      for (const found of visitor.take()) {
        if (found.kind === 'items') yield found.items
        else if (found.kind === 'compressed') {
          inflating ??= new CompressedDocuments(found.database, found.where, budget)
          yield* inflating.write(found.base64)
        } else {
          if (inflating) yield* inflating.end()
          inflating = undefined
        }
      }
    }
    scanner.end()
  } catch (error) {
    throw asInputError(error, 'the body')
  } finally {
    inflating?.destroy()
  }
  if (!visitor.hasDatabases) throw new InvalidBackupError('"dbs" is missing')
}

/** Drops a byte order mark. @throws InvalidBackupError that names another encoding */
async function* utf8Of(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const { encoding, text } = await utf8Text(body)
  for await (const piece of text) {
    if (encoding !== undefined) throw new InvalidBackupError(`the body is ${encoding}: send JSON in UTF-8`)
    yield piece
  }
}

function asInputError(error: unknown, what: string): unknown {
  if (error instanceof JsonDepthError) return new InvalidBackupError(`${what} is no backup: ${error.message}`)
  if (error instanceof JsonSyntaxError) {
    return new InvalidBackupError(
      error.truncated ? `${what} is truncated: ${error.message}` : `${what} is not JSON: ${error.message}`
    )
  }
  if (error instanceof InvalidDocumentError) return new InvalidBackupError(error.message)
  return error
}

const tooLong = () =>
  new RangeError(`a document that is put together takes more than ${LARGE_DOCUMENT} bytes`)

/** Joins the pieces of documents in arrays, while they are small. Items are valid until more is read. */
class DocumentCollector {
  items: BackupItem[] = []
  database: LogicalDatabase = 'components'
  array = ''
  #index = 0
  readonly #pieces = new Pieces(new GrowingBuffer(LARGE_DOCUMENT, tooLong))
  #large = false

  beginArray(database: LogicalDatabase, array: string): void {
    this.database = database
    this.array = array
    this.#index = 0
  }

  /** Returns the items found since the last call. */
  take(): BackupItem[] {
    const { items } = this
    this.items = []
    return items
  }

  /** @throws InvalidBackupError when the next element of the array is no document */
  beginDocument(kind: JsonKind): JsonAction {
    if (kind !== 'object') throw new InvalidBackupError(`${this.array}[${this.#index}] is not an object`)
    return 'stream'
  }

  add(piece: Uint8Array): void {
    if (!this.#large && this.#pieces.length + piece.length <= LARGE_DOCUMENT) {
      // Items are taken after each chunk, in which a value has one piece: no waiting item lies in the memory.
      this.#pieces.add(piece)
      return
    }
    this.#large = true
    if (this.#pieces.length > 0) this.#addItem({ kind: 'piece', bytes: this.#pieces.take(), last: false })
    this.#addItem({ kind: 'piece', bytes: piece, last: false })
  }

  endDocument(): void {
    if (this.#large) this.#addItem({ kind: 'piece', bytes: Buffer.alloc(0), last: true })
    else this.#addItem({ kind: 'document', bytes: this.#pieces.take() })
    this.#large = false
    this.#index++
  }

  #addItem(
    item: { kind: 'document'; bytes: Buffer } | { kind: 'piece'; bytes: Uint8Array; last: boolean }
  ): void {
    this.items.push({ ...item, database: this.database, where: `${this.array}[${this.#index}]` })
  }
}

type FoundPart =
  | { kind: 'items'; items: BackupItem[] }
  | { kind: 'compressed'; database: LogicalDatabase; where: string; base64: string }
  | { kind: 'compressedEnd' }

class BackupVisitor implements JsonVisitor {
  hasDatabases = false
  readonly #names: DatabaseNames
  readonly #collector = new DocumentCollector()
  readonly #members = new Set<string>()
  readonly #keys = new Map<LogicalDatabase, string>()
  readonly #inDatabase = new Set<string>()
  #found: FoundPart[] = []
  #member: Buffer[] = []
  #memberSize = 0

  constructor(names: DatabaseNames) {
    this.#names = names
  }

  take(): FoundPart[] {
    this.#takeItems()
    const found = this.#found
    this.#found = []
    return found
  }

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    switch (path.length) {
      case 0:
        if (kind !== 'object') throw new InvalidBackupError('the body must be an object')
        return 'enter'
      case 1:
        return this.#beginMember(String(path[0]), kind)
      case 2:
        return this.#beginDatabase(String(path[1]), kind)
      case 3:
        return this.#beginDatabaseMember(String(path[2]), kind)
      default:
        return this.#collector.beginDocument(kind)
    }
  }

  bytes(piece: Uint8Array, path: JsonPath): void {
    if (path.length === 4) this.#collector.add(piece)
    else if (path[2] === 'compressed_docs') {
      this.#takeItems()
      const { database, array: where } = this.#collector
      const base64 = Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength).toString('latin1')
      this.#found.push({ kind: 'compressed', database, where, base64 })
    } else {
      this.#memberSize += piece.length
      if (this.#memberSize > MAX_MEMBER) throw new InvalidBackupError(`"${path.join('.')}" is too long`)
      this.#member.push(Buffer.from(piece))
    }
  }

  end(path: JsonPath): void {
    if (path.length === 4) this.#collector.endDocument()
    else if (path.length === 3) {
      if (path[2] === 'compressed_docs') this.#found.push({ kind: 'compressedEnd' })
      else if (this.#member.length > 0) this.#endAbout(path[2] as keyof AboutDatabase)
    } else if (path.length === 2) {
      if (!this.#inDatabase.has('docs') && !this.#inDatabase.has('compressed_docs')) {
        throw new InvalidBackupError(`"dbs.${path[1]}.docs" is missing`)
      }
    } else if (path.length === 1 && path[0] !== 'dbs') {
      this.#collector.items.push({ kind: 'member', name: String(path[0]), value: this.#takeMember() })
    }
  }

  #endAbout(name: keyof AboutDatabase): void {
    const { database, items } = this.#collector
    const where = `dbs.${this.#keys.get(database)}.${name}`
    items.push({ kind: 'about', database, where, name, value: this.#takeMember() })
  }

  #takeMember(): unknown {
    const value: unknown = JSON.parse(Buffer.concat(this.#member).toString())
    this.#member = []
    this.#memberSize = 0
    return value
  }

  #takeItems(): void {
    const items = this.#collector.take()
    if (items.length > 0) this.#found.push({ kind: 'items', items })
  }

  #beginMember(name: string, kind: JsonKind): JsonAction {
    if (this.#members.has(name)) throw new InvalidBackupError(`"${name}" stands in the body twice`)
    this.#members.add(name)
    if (name === 'dbs') {
      if (kind !== 'object') throw new InvalidBackupError('"dbs" must be an object')
      this.hasDatabases = true
      return 'enter'
    }
    if (IGNORED.has(name)) return 'skip'
    if (!MEMBERS.has(name))
      throw new InvalidBackupError(`unknown key "${cutText(name, MOST.name)}" in the body`)
    return 'stream'
  }

  #beginDatabase(key: string, kind: JsonKind): JsonAction {
    const database = databaseOfKey(key, this.#names)
    const shown = cutText(key, MOST.name)
    if (!database) throw new InvalidBackupError(`"dbs.${shown}" is not a database of this console`)
    const other = this.#keys.get(database)
    if (other !== undefined) {
      throw new InvalidBackupError(`"dbs.${other}" and "dbs.${shown}" are the same database`)
    }
    if (kind !== 'object') throw new InvalidBackupError(`"dbs.${shown}" must be an object`)
    this.#keys.set(database, key)
    this.#collector.database = database
    this.#inDatabase.clear()
    this.#collector.items.push({ kind: 'database', database, key })
    return 'enter'
  }

  #beginDatabaseMember(name: string, kind: JsonKind): JsonAction {
    const { database } = this.#collector
    const where = `dbs.${this.#keys.get(database)}.${cutText(name, MOST.name)}`
    if (this.#inDatabase.has(name)) throw new InvalidBackupError(`"${where}" stands there twice`)
    this.#inDatabase.add(name)
    if (name === 'docs' || name === 'compressed_docs') {
      const expected = name === 'docs' ? 'array' : 'string'
      if (kind !== expected)
        throw new InvalidBackupError(`"${where}" must be ${name === 'docs' ? 'an array' : 'a string'}`)
      if (this.#inDatabase.has('docs') && this.#inDatabase.has('compressed_docs')) {
        throw new InvalidBackupError(`"${where}": there are both "docs" and "compressed_docs"`)
      }
      this.#collector.beginArray(database, where)
      return name === 'docs' ? 'enter' : 'stream'
    }
    if (isAbout(name)) return 'stream'
    if (!DATABASE_MEMBERS.has(name)) throw new InvalidBackupError(`unknown key "${where}"`)
    return 'skip'
  }
}

/** Receives documents from an array whose JSON is a text by itself. */
class ArrayVisitor extends DocumentCollector implements JsonVisitor {
  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length > 0) return this.beginDocument(kind)
    if (kind !== 'array') throw new InvalidBackupError(`"${this.array}" does not inflate to an array`)
    return 'enter'
  }

  bytes(piece: Uint8Array): void {
    this.add(piece)
  }

  end(path: JsonPath): void {
    if (path.length > 0) this.endDocument()
  }
}

/** Counts what is inflated of one backup. */
class InflateBudget {
  readonly #limit: number
  readonly #names = new Set<string>()
  #inflated = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** @throws TooLargeError */
  count(bytes: number, where: string): void {
    this.#names.add(`"${where}"`)
    this.#inflated += bytes
    if (this.#inflated <= this.#limit) return
    const inflate = this.#names.size > 1 ? 'inflate' : 'inflates'
    throw new TooLargeError(`${[...this.#names].join(' and ')} ${inflate} to more than ${this.#limit} bytes`)
  }
}

/** Inflates a `compressed_docs` as its text arrives. */
class CompressedDocuments {
  readonly #where: string
  readonly #budget: InflateBudget
  readonly #inflater = new Inflater(createInflate())
  readonly #visitor = new ArrayVisitor()
  readonly #scanner = new JsonScanner(this.#visitor)
  #text = ''

  constructor(database: LogicalDatabase, where: string, budget: InflateBudget) {
    this.#where = where
    this.#budget = budget
    this.#visitor.beginArray(database, where)
  }

  /** @param text the next characters of the JSON string, quotes included */
  async *write(text: string): AsyncGenerator<BackupItem[]> {
    // JSON may escape a solidus; base64 has nothing else that could be escaped.
    const characters = this.#text + text.replace(/["\\]/g, '')
    const whole = characters.length - (characters.length % 4)
    this.#text = characters.slice(whole)
    yield* this.#decode(characters.slice(0, whole))
  }

  async *end(): AsyncGenerator<BackupItem[]> {
    yield* this.#decode(this.#text)
    try {
      yield* this.#scan(await this.#inflater.end())
      this.#scanner.end()
    } catch (error) {
      throw this.#asInputError(error)
    }
  }

  destroy(): void {
    this.#inflater.destroy()
  }

  async *#decode(base64: string): AsyncGenerator<BackupItem[]> {
    if (!/^[A-Za-z0-9+/]*={0,2}$/.test(base64)) throw new InvalidBackupError(`"${this.#where}" is not base64`)
    try {
      for await (const output of this.#inflater.write(Buffer.from(base64, 'base64')))
        yield* this.#scan(output)
    } catch (error) {
      throw this.#asInputError(error)
    }
  }

  async *#scan(output: readonly Buffer[]): AsyncGenerator<BackupItem[]> {
    for await (const piece of inSharedTurns(output)) {
      this.#budget.count(piece.length, this.#where)
      this.#scanner.write(piece)
      const items = this.#visitor.take()
      if (items.length > 0) yield items
    }
  }

  #asInputError(error: unknown): unknown {
    if (error instanceof InflateError) return new InvalidBackupError(`"${this.#where}" ${error.message}`)
    return asInputError(error, `what "${this.#where}" inflates to`)
  }
}
