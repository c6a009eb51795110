import { inTurns } from '../waits/steps.js'
import {
  type AttachmentPart,
  inPieces,
  type MultipartBody,
  multipartRelated,
  totalLength
} from './multipart.js'
import type { CouchRequest } from './request.js'
import { fitsUrl } from './target.js'

export interface Revision {
  id: string
  rev: string
}

/** A document, at one revision or at the one that wins. */
export type Wanted = Pick<Revision, 'id'> & Partial<Revision>

export interface ChangesRange {
  since: string
  limit?: number
  includeDocs: boolean
}

export interface AllDocsRange {
  from?: string
  to?: string
  limit?: number
  includeDocs?: boolean
}

/** A body that is a stream, and can be read several times. */
export interface StreamedBody {
  open(): AsyncIterable<Uint8Array>
  /** Bytes. `undefined` where they are not known before. */
  readonly length: number | undefined
}

export interface AttachmentData extends StreamedBody {
  readonly length: number
}

export interface StreamedWrite {
  /** `false` keeps the revision that the document names. */
  newEdits: boolean
  /** Called when the body has been sent. */
  sent: () => void
  deadline: AbortSignal
}

/** How often CouchDB computes a row's sequence: it is costly, and a page's end always has one. */
const SEQ_INTERVAL = 1000

export function changesRequest(database: string, { since, limit, includeDocs }: ChangesRange): CouchRequest {
  const withDocs = includeDocs || undefined
  return {
    path: [database, '_changes'],
    query: {
      since,
      limit,
      seq_interval: SEQ_INTERVAL,
      include_docs: withDocs,
      conflicts: withDocs,
      att_encoding_info: withDocs,
      style: includeDocs ? undefined : 'all_docs'
    }
  }
}

export function allDocsRequest(
  database: string,
  { from, to, limit, includeDocs }: AllDocsRange
): CouchRequest {
  const path = [database, '_all_docs']
  const json = (key: string | undefined) => (key === undefined ? undefined : JSON.stringify(key))
  const withDocs = includeDocs || undefined
  const options = { limit, include_docs: withDocs, att_encoding_info: withDocs }
  const query = { startkey: json(from), endkey: json(to), ...options }
  if (fitsUrl({ path, query })) return { path, query }
  return { method: 'POST', path, json: { startkey: from, endkey: to, ...options } }
}

export const bulkGetRequest = (
  database: string,
  wanted: readonly Wanted[],
  { attachments }: { attachments: boolean }
): CouchRequest => ({
  method: 'POST',
  path: [database, '_bulk_get'],
  query: attachments ? { attachments } : { att_encoding_info: true },
  json: { docs: wanted.map(({ id, rev }) => ({ id, rev })) }
})

/** Asks which revisions a database lacks, one of each document. */
export const revsDiffRequest = (database: string, revisions: readonly Revision[]): CouchRequest => ({
  method: 'POST',
  path: [database, '_revs_diff'],
  json: Object.fromEntries(revisions.map(({ id, rev }) => [id, [rev]]))
})

/** Stores an attachment on a revision. The body is added for each attempt. */
export const attachmentUpload = (
  database: string,
  { id, rev }: Revision,
  name: string,
  contentType: string,
  { length }: StreamedBody
): CouchRequest => ({
  method: 'PUT',
  path: [database, id, name],
  query: { rev },
  headers: {
    'content-type': contentType,
    ...(length !== undefined && { 'content-length': String(length) })
  },
  write: true
})

/** Writes a document with its attachments, as parts of a multipart body. */
export async function documentUpload(
  database: string,
  id: string,
  document: readonly Buffer[],
  parts: readonly AttachmentPart[],
  { newEdits, sent }: StreamedWrite
): Promise<CouchRequest> {
  // CouchDB waits for ever for the first part of a multipart body that has none.
  const { headers, open } =
    parts.length > 0 ? await inTurns(multipartRelated(document, parts)) : jsonBody(document)
  return {
    method: 'PUT',
    path: [database, id],
    query: { new_edits: newEdits ? undefined : false },
    body: () => tellingSent(open(), sent),
    headers,
    write: true
  }
}

export const bulkRequest = (database: string, body: CouchRequest['body']): CouchRequest => ({
  method: 'POST',
  path: [database, '_bulk_docs'],
  body,
  headers: { 'content-type': 'application/json' },
  write: true
})

/** Yields the pieces of a body, and calls `sent` when all have been taken. */
export async function* tellingSent(
  pieces: AsyncIterable<Uint8Array>,
  sent: () => void
): AsyncGenerator<Uint8Array> {
  yield* pieces
  sent()
}

function jsonBody(document: readonly Buffer[]): MultipartBody {
  return {
    headers: { 'content-type': 'application/json', 'content-length': String(totalLength(document)) },
    async *open() {
      yield* inPieces(document)
    }
  }
}
