import { type DocumentBytes, documentSteps } from '../json/document.js'
import { DocumentLine } from '../json/document-line.js'
import { QUOTE } from '../json/json-bytes.js'
import { decodeValue, MemberCursor, objectsOf } from '../json/members.js'
import { StringWalk } from '../json/string-walk.js'
import type { Steps } from '../waits/steps.js'
import { checked, LeafResults, Refused } from './answers.js'
import { asText } from './bulk-body.js'
import { CouchError, malformed } from './errors.js'
import type { RowReader } from './json-rows.js'
import { type Leaf, winnerOf } from './leaves.js'
import type { Revision } from './requests.js'

/** A document that was read with its row, or its bytes as CouchDB sent them, after which more may follow. */
export type RowDocument = DocumentBytes | Uint8Array

/** Reads the document of a row. @throws InvalidDocumentError */
export function* rowDocument(doc: RowDocument): Steps<DocumentBytes> {
  return doc instanceof Uint8Array ? yield* documentSteps(doc) : doc
}

/** One row of the changes feed. */
export interface Change extends Revision {
  /** Opaque; `null` where CouchDB left it out (`seq_interval`). */
  seq: string | null
  deleted: boolean
  /** Several leaf revisions, deleted ones included. Known in pages without documents. */
  branched: boolean
  /** `null`: not asked for, or the body is gone. */
  doc: RowDocument | null
}

/** One document of `_all_docs`. */
export interface Row extends Revision {
  /** With stubs of its attachments. `null`: not asked for, or deleted meanwhile. */
  doc: RowDocument | null
}

/** One document of a `_bulk_get`. */
export interface FoundDocument {
  id: string
  /** `null` when the revision, or the document, is not there. */
  doc: Uint8Array | null
  /** Revisions that conflict with it, deleted ones left out. Told where no revision was asked for. */
  conflicts: string[]
}

function readChange(row: Uint8Array): Change {
  const change: Change = { id: '', rev: '', seq: null, deleted: false, branched: false, doc: null }
  let seqCame = false
  const cursor = new MemberCursor(row)
  while (cursor.next()) {
    const { valueStart: start } = cursor
    switch (cursor.key()) {
      case 'id':
        change.id = cursor.string() ?? ''
        break
      case 'seq':
        seqCame = true
        if (row[start] !== 0x6e)
          change.seq = cursor.string() ?? String(decodeValue(row, start, cursor.valueEnd))
        break
      case 'deleted':
        change.deleted = row[start] === 0x74
        break
      case 'doc':
        if (row[start] !== 0x7b) break
        // CouchDB sends the document last: its end is found when it is read.
        if (seqCame && change.id && change.rev) return { ...change, doc: row.subarray(start) }
        change.doc = row.subarray(start, cursor.valueEnd)
        break
      case 'changes':
        for (const leaf of objectsOf(cursor)) {
          change.branched = change.rev !== ''
          while (leaf.next()) if (leaf.key() === 'rev') change.rev ||= leaf.string() ?? ''
        }
        break
    }
  }
  if (!change.id || !change.rev) throw malformed('_changes', 'id and revision of a row')
  return change
}

function readAllDocsRow(row: Uint8Array): Row {
  const revision: Row = { id: '', rev: '', doc: null }
  const cursor = new MemberCursor(row)
  while (cursor.next()) {
    const key = cursor.key()
    if (key === 'id') revision.id = cursor.string() ?? ''
    else if (key === 'doc') {
      if (row[cursor.valueStart] !== 0x7b) continue
      // CouchDB sends the document last: its end is found when it is read.
      if (revision.id && revision.rev) return { ...revision, doc: row.subarray(cursor.valueStart) }
      revision.doc = row.subarray(cursor.valueStart, cursor.valueEnd)
    } else if (key === 'value') {
      const value = new MemberCursor(row, cursor.valueStart)
      while (value.next()) if (value.key() === 'rev') revision.rev = value.string() ?? ''
    }
  }
  if (!revision.id || !revision.rev) throw malformed('_all_docs', 'id and revision of a row')
  return revision
}

/** Returns a reader of rows of the changes feed. */
export function changeReader(): RowReader<Change> {
  const line = new RowLine()
  return {
    row: readChange,
    line(bytes, from, to) {
      line.begin(bytes, from, to)
      if (!line.passes(SEQ)) return undefined
      const seq = line.passes(NULL) ? null : line.string()
      const id = seq !== undefined && line.passes(ID) ? line.string() : undefined
      const rev = id && line.passes(CHANGES) ? line.string() : undefined
      if (seq === undefined || !id || !rev || !line.passes(END_OF_CHANGES)) return undefined
      const deleted = line.passes(DELETED)
      const doc = line.document()
      return doc === undefined ? undefined : { id, rev, seq, deleted, branched: false, doc }
    }
  }
}

/** Returns a reader of rows of `_all_docs`. */
export function allDocsReader(): RowReader<Row> {
  const line = new RowLine()
  return {
    row: readAllDocsRow,
    line(bytes, from, to) {
      line.begin(bytes, from, to)
      const id = line.passes(FIRST_ID) ? line.string() : undefined
      if (!id || !line.passes(KEY) || line.string() === undefined || !line.passes(VALUE)) return undefined
      const rev = line.string()
      if (!rev || !line.passes(END)) return undefined
      const doc = line.document()
      return doc === undefined ? undefined : { id, rev, doc }
    }
  }
}

const [SEQ, ID, CHANGES, END_OF_CHANGES, DELETED] = [
  '{"seq":',
  ',"id":',
  ',"changes":[{"rev":',
  '}]',
  ',"deleted":true'
].map((text) => Buffer.from(text))
const [FIRST_ID, KEY, VALUE, DOC, END, NULL] = [
  '{"id":',
  ',"key":',
  ',"value":{"rev":',
  ',"doc":',
  '}',
  'null'
].map((text) => Buffer.from(text))

/** Reads a row from a line where its members stand in the order and without the white space of CouchDB. */
class RowLine {
  readonly #strings = new StringWalk()
  readonly #documents = new DocumentLine()
  #bytes: Buffer = Buffer.alloc(0)
  #at = 0
  #to = 0

  begin(bytes: Buffer, from: number, to: number): void {
    this.#strings.begin(bytes)
    this.#bytes = bytes
    this.#at = from
    this.#to = to
  }

  /** Passes over a text. @returns whether it stands here */
  passes(text: Uint8Array): boolean {
    for (let i = 0; i < text.length; i++) if (this.#bytes[this.#at + i] !== text[i]) return false
    this.#at += text.length
    return true
  }

  /** Reads a string without escapes. @returns `undefined` where there is none */
  string(): string | undefined {
    const start = this.#at
    if (this.#bytes[start] !== QUOTE) return undefined
    const end = this.#strings.endOf(this.#bytes, start, this.#to)
    if (end === 0 || this.#strings.lastEscape > start) return undefined
    this.#at = end
    return this.#bytes.toString('utf8', start + 1, end - 1)
  }

  /**
   * Reads the end of the row, and the document where there is one.
   * @returns `null` for a row without, `undefined` for what is rare or wrong
   */
  document(): DocumentBytes | null | undefined {
    const end = this.#to - 1
    if (this.#bytes[end] !== END[0]) return undefined
    if (this.#at === end) return null
    return this.passes(DOC) ? this.#documents.usual(this.#bytes, this.#at, end) : undefined
  }
}

export function* bulkGetRow(row: Uint8Array): Steps<FoundDocument> {
  let id: string | undefined
  const leaves: Uint8Array[] = []
  const cursor = new MemberCursor(row)
  while (cursor.next()) {
    const key = cursor.key()
    if (key === 'id') id = cursor.string()
    else if (key === 'docs') {
      for (const answer of objectsOf(cursor)) {
        while (answer.next()) {
          while (!answer.reachEnd()) yield
          if (answer.key() === 'ok') leaves.push(row.subarray(answer.valueStart, answer.valueEnd))
          else if (answer.key() === 'error')
            rejectServerError(row.subarray(answer.valueStart, answer.valueEnd))
        }
      }
    }
  }
  if (id === undefined) throw malformed('_bulk_get', 'id of a result')
  return { id, ...(yield* winnerOf(leaves)) }
}

/** Throws the fault of a `_bulk_get` row, but not for a missing revision or an id that cannot exist. */
export function rejectServerError(bytes: Uint8Array): void {
  const { error, reason } = checked(Refused, decodeValue(bytes, 0, bytes.length), '_bulk_get')
  if (error === 'not_found' || error === 'illegal_docid') return
  throw new CouchError('_bulk_get', {
    error: asText(error ?? 'unknown'),
    reason: asText(reason ?? 'CouchDB told nothing more'),
    retryable: error !== 'bad_request'
  })
}

/** Reads the answer to a `_bulk_get` of one document without a revision. */
export function leavesOf(answer: unknown, name: string): Leaf[] {
  const { results } = checked(LeafResults, answer, name)
  return results[0].docs.flatMap(({ ok, error }) => {
    if (error) rejectServerError(Buffer.from(JSON.stringify(error)))
    if (typeof ok?._rev !== 'string') return []
    return [{ rev: ok._rev, deleted: ok._deleted === true, doc: ok }]
  })
}
