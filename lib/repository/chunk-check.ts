import { isUtf8 } from 'node:buffer'
import { bytesFingerprinter, type Fingerprint, fingerprinter } from '../ids/fingerprint.js'
import { largeKey, SURELY_SHORT } from '../ids/large-key.js'
import { documentSteps, isDesign } from '../json/document.js'
import { DocumentLine, idText, isOfLine, type LineDocument } from '../json/document-line.js'
import { JsonScanner, type JsonVisitor, SKIP_ALL } from '../json/scanner.js'
import { inSharedTurns, inTurns, sharedTurn } from '../waits/steps.js'
import { LineFindings, type OnFinding } from './findings.js'
import type { ChunkEntry } from './layout.js'
import type { LineMarks } from './line-marks.js'
import { deadLinesOf } from './line-set.js'

const NEWLINE = 0x0a
/** Bytes of lines that are checked between two looks at the time. */
const CHECKED = 256 * 1024
/** Bytes of a line from which checking it has turns of its own. */
const LONG = 1024 * 1024

/** Documents nest as deep, and have as long names, as the database takes. */
const STORED = { maxDepth: Number.POSITIVE_INFINITY, maxKey: Number.POSITIVE_INFINITY }

/** The documents and bytes that count in a checked chunk. */
export interface CheckedLines {
  documents: number
  bytes: number
}

/** Tells whether a line counts, by its number and its document. */
export type Counts = (line: number, document: LineDocument) => boolean

/** Checks the lines of chunks: each is a document, and what their entries and the index tell of them is so. */
export class ChunkCheck {
  readonly #line = new DocumentLine()
  readonly #onFinding: OnFinding
  readonly #onWrongEntry: (entry: ChunkEntry, reason: string) => void
  readonly #print: (document: LineDocument) => Fingerprint

  /**
   * @param key of the fingerprints in the index
   * @param onWrongEntry is told what is wrong with an entry alone: others list the chunk as well
   */
  constructor(key: string, onFinding: OnFinding, onWrongEntry: (entry: ChunkEntry, reason: string) => void) {
    this.#onWrongEntry = onWrongEntry
    const [ofId, ofBytes] = [fingerprinter(key), bytesFingerprinter(key)]
    this.#onFinding = onFinding
    this.#print = (document) => {
      const bytes = document.idBytes
      return bytes && bytes.length <= SURELY_SHORT ? ofBytes(bytes) : ofId(idText(document))
    }
  }

  /**
   * Checks the lines of a chunk, of which the digest is that of the entry.
   * @param marks of the index; absent where there is none
   * @param counts where the entry does not tell which lines count
   */
  async check(entry: ChunkEntry, bytes: Buffer, marks?: LineMarks, counts?: Counts): Promise<CheckedLines> {
    const found = new LineFindings()
    const checked: CheckedLines = { documents: 0, bytes: 0 }
    const dead = deadLinesOf(entry)
    const isText = isUtf8(bytes)
    let [line, designs, deadDocuments, deadBytes, checkedTo] = [0, 0, 0, 0, 0]
    for (let from = 0; from < bytes.length; ) {
      if (from >= checkedTo) {
        checkedTo = from + CHECKED
        await sharedTurn()
      }
      const end = bytes.indexOf(NEWLINE, from)
      const to = end < 0 ? bytes.length : end
      if (end < 0) found.add(line, 'has no end')
      const isDead = dead.has(line)
      try {
        if (!isText && !isUtf8(bytes.subarray(from, to))) throw new NotTextError()
        const long = to - from > LONG
        const document = long ? await readLong(bytes.subarray(from, to)) : this.#line.read(bytes, from, to)
        if (isDesignLine(document)) designs++
        if (!isDead) {
          this.#checkMark(found, { line, length: to - from + 1 }, document, marks)
          if (!document.hasRevision) found.add(line, 'has no "_rev"', idText(document))
          if (counts?.(line, document) ?? true) {
            checked.documents++
            checked.bytes += to - from + 1
          }
        }
      } catch (error) {
        if (!isOfLine(error) && !(error instanceof NotTextError)) throw error
        found.add(line, `is no document: ${error.message}`)
      }
      if (isDead) {
        deadDocuments++
        deadBytes += to - from + 1
      }
      from = to + 1
      line++
    }
    if (line !== entry.docs) this.#wrong(entry, `holds ${line} documents instead of ${entry.docs}`)
    else if (designs !== entry.design)
      this.#wrong(entry, `holds ${designs} design documents instead of ${entry.design}`)
    if (entry.dead && (deadDocuments !== entry.dead.docs || deadBytes !== entry.dead.raw)) {
      const { docs, raw } = entry.dead
      const reason = `with ${docs} lines of ${raw} bytes that do not count, and it has ${deadDocuments} of ${deadBytes}`
      this.#onWrongEntry(entry, reason)
    }
    const finding = found.of(entry.id)
    if (finding) this.#onFinding(finding)
    return checked
  }

  /** Checks a chunk of one document that is too large for memory. @param key see `largeKey` */
  async checkLarge(
    entry: ChunkEntry,
    key: string,
    pieces: AsyncIterable<Buffer>,
    marks?: LineMarks
  ): Promise<CheckedLines> {
    const visitor = new RevisionVisitor()
    const found = new LineFindings()
    try {
      const scanner = new JsonScanner(visitor, STORED)
      for await (const piece of inSharedTurns(pieces)) scanner.write(piece)
      scanner.end()
      const { id, rev } = visitor
      if (id === undefined || largeKey(id) !== key) found.add(0, 'is another document than is listed')
      else if (rev === undefined) found.add(0, 'has no "_rev"', id)
      else if (marks && !isSame(this.#print(asDocument(id, true)), marks.print(0)))
        found.add(0, 'is not what the index tells', id)
    } catch (error) {
      if (!isOfLine(error)) throw error
      found.add(0, `is no document: ${error.message}`)
    }
    const finding = found.of(entry.id)
    if (finding) this.#onFinding(finding)
    return { documents: 1, bytes: entry.raw }
  }

  #checkMark(
    found: LineFindings,
    { line, length }: { line: number; length: number },
    document: LineDocument,
    marks: LineMarks | undefined
  ): void {
    if (!marks || line >= marks.count) return
    const isOther = marks.length(line) !== length || !isSame(this.#print(document), marks.print(line))
    if (isOther) found.add(line, 'is not what the index tells', idText(document))
  }

  #wrong({ id }: ChunkEntry, reason: string): void {
    this.#onFinding({ part: 'chunk', id, reason })
  }
}

class NotTextError extends Error {
  constructor() {
    super('it is not UTF-8')
  }
}

// No usual id begins with an underscore: see DocumentLine.
const isDesignLine = ({ idBytes, id }: LineDocument): boolean => idBytes === undefined && isDesign(id)

const isSame = (a: Fingerprint, b: Fingerprint): boolean => a.h >>> 0 === b.h && a.l >>> 0 === b.l

const asDocument = (id: string, hasRevision: boolean): LineDocument => ({
  idBytes: undefined,
  id,
  hasRevision
})

/** Reads a long line so that others have turns. */
async function readLong(line: Buffer): Promise<LineDocument> {
  const scanner = new JsonScanner(SKIP_ALL, STORED)
  for await (const piece of inSharedTurns([line])) scanner.write(piece)
  scanner.end()
  const { id, rev } = await inTurns(documentSteps(line))
  return asDocument(id, rev !== undefined)
}

/** Keeps id and revision of a document that comes in pieces. */
class RevisionVisitor implements JsonVisitor {
  id: string | undefined
  rev: string | undefined
  #pieces: Buffer[] = []

  begin(path: readonly unknown[]) {
    if (path.length === 0) return 'enter' as const
    return path.length === 1 && (path[0] === '_id' || path[0] === '_rev')
      ? ('stream' as const)
      : ('skip' as const)
  }

  bytes(piece: Uint8Array): void {
    this.#pieces.push(Buffer.from(piece))
  }

  end(path: readonly unknown[]): void {
    if (this.#pieces.length === 0) return
    const value: unknown = JSON.parse(Buffer.concat(this.#pieces).toString())
    this.#pieces = []
    if (typeof value === 'string') this[path[0] === '_id' ? 'id' : 'rev'] = value
  }
}
