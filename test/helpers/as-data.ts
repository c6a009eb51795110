import type { AttachmentData } from '../../lib/couch/requests.js'

/** A text as data of an attachment. */
export function asData(text: string): AttachmentData {
  const bytes = Buffer.from(text)
  return {
    length: bytes.length,
    async *open() {
      yield bytes
    }
  }
}
