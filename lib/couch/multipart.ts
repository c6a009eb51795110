import { randomBytes } from 'node:crypto'

/** An attachment to be sent with its document. */
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
 * A `multipart/related` body as CouchDB reads it: the document, then its attachments' bytes in the order in which
 * the document names them (https://docs.couchdb.org/en/stable/api/document/common.html#creating-multiple-attachments).
 *
 * @param document JSON whose `_attachments` say `"follows":true` and the length of each part
 */
export function multipartRelated(document: Buffer, parts: readonly AttachmentPart[]): MultipartBody {
  const boundary = randomBytes(16).toString('hex')
  const head = Buffer.concat([
    Buffer.from(`--${boundary}\r\ncontent-type: application/json\r\n\r\n`),
    document,
    Buffer.from('\r\n')
  ])
  const heads = parts.map((part) =>
    Buffer.from(
      // The document says the type as it is; CouchDB keeps types with line breaks, which would end the head here.
      `--${boundary}\r\ncontent-type: ${part.contentType.replace(/[\r\n]+/g, ' ')}\r\ncontent-length: ${part.length}\r\n` +
        `content-disposition: attachment; filename="${encodeURIComponent(part.name)}"\r\n\r\n`
    )
  )
  const tail = Buffer.from(`--${boundary}--`)
  let length = head.length + tail.length
  parts.forEach((part, index) => {
    length += heads[index].length + part.length + 2
  })
  return {
    headers: {
      'content-type': `multipart/related; boundary="${boundary}"`,
      'content-length': String(length)
    },
    async *open() {
      yield head
      for (const [index, part] of parts.entries()) {
        yield heads[index]
        yield* part.open()
        yield CRLF
      }
      yield tail
    }
  }
}

const CRLF = Buffer.from('\r\n')
