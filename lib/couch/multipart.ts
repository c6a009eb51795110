import { randomBytes } from 'node:crypto'
import { slicesOf } from '../bytes/views.js'
import type { Steps } from '../waits/steps.js'

export interface AttachmentPart {
  name: string
  contentType: string
  /** Bytes, not encoded. */
  length: number
  open: () => AsyncIterable<Uint8Array>
}

export interface MultipartBody {
  headers: Record<string, string>
  open: () => AsyncIterable<Uint8Array>
}

/**
 * Makes a `multipart/related` body: `document`, with `"follows":true` and lengths, then attachments in its
 * order (https://docs.couchdb.org/en/stable/api/document/common.html#creating-multiple-attachments).
 */
export function* multipartRelated(
  document: readonly Buffer[],
  parts: readonly AttachmentPart[]
): Steps<MultipartBody> {
  const boundary = randomBytes(16).toString('hex')
  const head = [Buffer.from(`--${boundary}\r\ncontent-type: application/json\r\n\r\n`), ...document, CRLF]
  const heads: Buffer[] = []
  for (const part of parts) {
    heads.push(headOf(part, boundary))
    yield
  }
  const tail = Buffer.from(`--${boundary}--`)
  const bodies = parts.reduce((sum, part) => sum + part.length + CRLF.length, 0)
  const length = totalLength(head) + totalLength(heads) + bodies + tail.length
  return {
    headers: {
      'content-type': `multipart/related; boundary="${boundary}"`,
      'content-length': String(length)
    },
    async *open() {
      yield* inPieces(head)
      for (const [index, part] of parts.entries()) {
        yield heads[index]
        yield* part.open()
        yield CRLF
      }
      yield tail
    }
  }
}

const headOf = ({ name, contentType, length }: AttachmentPart, boundary: string): Buffer =>
  Buffer.from(
    // CouchDB keeps types with line breaks, which would end the head here; the document has the exact type.
    `--${boundary}\r\ncontent-type: ${contentType.replace(/[\r\n]+/g, ' ')}\r\ncontent-length: ${length}\r\n` +
      `content-disposition: attachment; filename="${encodeURIComponent(name)}"\r\n\r\n`
  )

const CRLF = Buffer.from('\r\n')

/** Bytes of a piece of a document that is sent. */
const PIECE = 64 * 1024

/** Yields the bytes in short copies, so that nothing which is sent late is read where the document stood. */
export function* inPieces(pieces: readonly Uint8Array[]): Generator<Buffer> {
  for (const piece of pieces) for (const slice of slicesOf(piece, PIECE)) yield Buffer.from(slice)
}

export const totalLength = (pieces: readonly Buffer[]): number =>
  pieces.reduce((sum, { length }) => sum + length, 0)
