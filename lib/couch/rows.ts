import { decodeValue, MemberCursor, objectsOf } from '../json/members.js'
import { type Steps, turnAfter } from '../waits/steps.js'
import { asText } from './bulk-body.js'
import { CouchError, malformed } from './errors.js'
import { type Leaf, winnerOf } from './leaves.js'
import type { Revision } from './requests.js'

/** One row of the changes feed. */
export interface Change extends Revision {
  /** Opaque; `null` where CouchDB left it out (`seq_interval`). */
  seq: string | null
  deleted: boolean
  /** Several leaf revisions, deleted ones included. Known in pages without documents. */
  branched: boolean
  /** Bytes as CouchDB sent them, for `readDocument`; more may follow. `null`: not asked for, or the body is gone. */
  doc: Uint8Array | null
}

/** One document of `_all_docs`. */
export interface Row extends Revision {
  /** Bytes with stubs, for `readDocument`; more may follow. `null`: not asked for, or deleted meanwhile. */
  doc: Uint8Array | null
}

/** One document of a `_bulk_get`. */
export interface FoundDocument {
  id: string
  /** `null` when the revision, or the document, is not there. */
  doc: Uint8Array | null
  /** Revisions that conflict with it, deleted ones left out. Told where no revision was asked for. */
  conflicts: string[]
}

/** Reads rows, and lets others run after a long one, which comes first. */
export async function* readRows<T>(
  groups: AsyncIterable<Uint8Array[]>,
  read: (row: Uint8Array) => T
): AsyncGenerator<T[]> {
  for await (const rows of groups) {
    const all = rows.map(read)
    const pause = turnAfter(rows[0])
    if (pause) await pause
    yield all
  }
}

export function readChange(row: Uint8Array): Change {
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

export function readAllDocsRow(row: Uint8Array): Row {
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
  const { error, reason } = decodeValue(bytes, 0, bytes.length) as { error?: string; reason?: string }
  if (error === 'not_found' || error === 'illegal_docid') return
  throw new CouchError('_bulk_get', {
    error: asText(error ?? 'unknown'),
    reason: asText(reason ?? 'CouchDB told nothing more'),
    retryable: error !== 'bad_request'
  })
}

interface BulkGetAnswer {
  results?: { docs?: { ok?: { _rev?: unknown; _deleted?: unknown }; error?: { error?: string } }[] }[]
}

/** Reads the answer to a `_bulk_get` of one document without a revision. */
export function leavesOf(answer: unknown, name: string): Leaf[] {
  const docs = (answer as BulkGetAnswer | null)?.results?.[0]?.docs
  if (!Array.isArray(docs)) throw malformed(name, 'results')
  return docs.flatMap(({ ok, error }) => {
    if (error) rejectServerError(Buffer.from(JSON.stringify(error)))
    if (typeof ok?._rev !== 'string') return []
    return [{ rev: ok._rev, deleted: ok._deleted === true, doc: ok as Record<string, unknown> }]
  })
}
