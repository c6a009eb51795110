import type { LogicalDatabase } from '../../types/databases.js'
import { SpoolDamagedError } from '../errors.js'
import { type Fingerprint, fingerprint } from '../ids/fingerprint.js'
import { type DocumentBytes, documentId, documentSteps } from '../json/document.js'
import { MemberCursor } from '../json/members.js'
import type { LargeDocumentBytes, UnsharedDocuments } from '../repository/stored-documents.js'
import { headMemory, type LargeDocument } from '../restore/large-document.js'
import { keyedHash } from '../restore/same-content.js'
import { headOf, isLarge, type RestoreSource, type SourceDocument } from '../restore/source.js'
import { spooledLarge } from '../restore/stored-source.js'
import type { Spool } from '../spool/spool.js'
import { inTurnsIfLong } from '../waits/steps.js'
import { type Comparable, comparableOf } from './compare.js'

/** A document to compare. Valid until the next group is asked for. */
export interface SideDocument {
  readonly print: Fingerprint
  /** A fingerprint of all but the revision, which may differ between equal documents. Absent where it is not known. */
  readonly state: Fingerprint | undefined
  /** Returns the document, to be compared at once. */
  read(): Promise<Comparable>
  /** Returns a copy, to be compared later. */
  hold(): Promise<Held>
}

/** A document in memory of its own. */
export interface Held {
  /** Bytes of memory. */
  bytes: number
  read(): Promise<Comparable>
}

/** The documents of a chunk, and the chunk's number. */
interface SideGroup {
  chunk: number
  documents: AsyncIterable<SideDocument[]>
}

/** The documents of one database of a backup that may differ from those of another. */
export interface Side {
  /** Upper bound of the number of documents. */
  readonly documents: number
  /** Upper bound of the bytes that all documents take when they are held. */
  readonly bytes: number
  /** Yields the groups of the chunks that are wanted, each valid until the next is asked for. */
  groups(wanted: (chunk: number) => boolean): AsyncIterable<SideGroup>
}

/** Bytes of memory that a held document takes beside its own bytes. */
const HELD = 400

export const EMPTY_SIDE: Side = {
  documents: 0,
  bytes: 0,
  async *groups() {}
}

/** Reads the documents that a stored backup does not share with another. */
export function storedSide(unshared: UnsharedDocuments, spool: () => Spool): Side {
  const memory = headMemory()
  return {
    documents: unshared.documents,
    bytes: unshared.bytes + HELD * unshared.documents,
    async *groups(wanted) {
      for await (const group of unshared.groups(wanted)) {
        const documents =
          group.kind === 'large' ? largeDocument(group, spool(), memory) : linesOf(group.counting())
        yield { chunk: group.chunk, documents }
      }
    }
  }
}

async function* linesOf(groups: AsyncIterable<Buffer[]>): AsyncGenerator<SideDocument[]> {
  for await (const lines of groups) yield lines.map((line) => new LineDocument(line))
}

async function* largeDocument(
  group: LargeDocumentBytes,
  spool: Spool,
  memory: ReturnType<typeof headMemory>
): AsyncGenerator<SideDocument[]> {
  yield [new StoredLarge(group, spool, memory)]
}

/** Reads all documents of a spooled backup. */
export function spooledSide(source: RestoreSource, database: LogicalDatabase): Side {
  return {
    documents: source.count(database),
    // Not known before they are read, so they are never held all at once.
    bytes: Number.POSITIVE_INFINITY,
    async *groups(wanted) {
      if (wanted(0)) yield { chunk: 0, documents: sourceDocuments(source, database) }
    }
  }
}

async function* sourceDocuments(
  source: RestoreSource,
  database: LogicalDatabase
): AsyncGenerator<SideDocument[]> {
  for (const design of [false, true])
    for await (const group of source.documents(database, design))
      yield group
        .filter((document) => isLarge(document) || !document.deleted)
        .map((document) => new SpooledDocument(document))
}

/** A document as a line of a chunk. */
class LineDocument implements SideDocument {
  readonly print: Fingerprint
  readonly #line: Buffer

  constructor(line: Buffer) {
    this.#line = line
    this.print = fingerprint(documentId(line))
  }

  get state(): Fingerprint {
    return stateOf(this.#line)
  }

  read(): Promise<Comparable> {
    return parsed(this.#line)
  }

  async hold(): Promise<Held> {
    const line = Buffer.from(this.#line)
    return { bytes: line.length + HELD, read: () => parsed(line) }
  }
}

const parsed = async (line: Buffer): Promise<Comparable> =>
  comparableOf(await inTurnsIfLong(line, documentSteps(line)))

/** A document of a spooled backup. */
class SpooledDocument implements SideDocument {
  readonly print: Fingerprint
  readonly #document: SourceDocument

  constructor(document: SourceDocument) {
    this.#document = document
    this.print = fingerprint(headOf(document).id)
  }

  get state(): Fingerprint | undefined {
    return isLarge(this.#document) ? undefined : stateOf(this.#document.bytes)
  }

  read(): Promise<Comparable> {
    return comparableOf(this.#document)
  }

  hold(): Promise<Held> {
    return held(this.#document)
  }
}

/** A stored document too large for memory, which is read when it is compared. */
class StoredLarge implements SideDocument {
  readonly print: Fingerprint
  readonly state = undefined
  readonly #stored: LargeDocumentBytes
  readonly #spool: Spool
  readonly #memory: ReturnType<typeof headMemory>

  constructor(stored: LargeDocumentBytes, spool: Spool, memory: ReturnType<typeof headMemory>) {
    this.print = fingerprint(stored.key)
    this.#stored = stored
    this.#spool = spool
    this.#memory = memory
  }

  read(): Promise<Comparable> {
    return this.#use(comparableOf)
  }

  hold(): Promise<Held> {
    return this.#use(held)
  }

  async #use<T>(use: (document: LargeDocument) => Promise<T>): Promise<T> {
    for await (const document of spooledLarge(this.#stored, this.#spool, this.#memory))
      return await use(document)
    throw new SpoolDamagedError('a document is missing')
  }
}

/** Copies what a document is compared by. */
async function held(document: SourceDocument): Promise<Held> {
  const comparable = await comparableOf(document)
  if ('problem' in comparable) return { bytes: HELD + comparable.id.length, read: async () => comparable }
  const { attachments, document: read } = comparable
  const copy: DocumentBytes = { ...read, bytes: Buffer.from(read.bytes) }
  const bytes = copy.bytes.length + HELD * (1 + attachments.size)
  // Attachments of other documents are views of the document: find them again in the copy.
  if (!isLarge(document)) return { bytes, read: () => comparableOf(copy) }
  return { bytes, read: async () => ({ document: copy, attachments }) }
}

/** Returns a fingerprint of a document without its revision, if that comes second, as CouchDB sends it. */
function stateOf(bytes: Uint8Array): Fingerprint {
  const hash = keyedHash()
  const cursor = new MemberCursor(bytes)
  cursor.next()
  if (cursor.next() && cursor.key() === '_rev')
    hash.update(bytes.subarray(0, cursor.keyStart)).update(bytes.subarray(cursor.valueEnd))
  else hash.update(bytes)
  const digest = hash.digest()
  return { h: digest.readUInt32LE(0), l: digest.readUInt32LE(4) }
}
