import type { AttachmentData } from '../../lib/couch/requests.js'

/** Returns a text as the data of an attachment. */
export function asData(text: string): AttachmentData {
  const bytes = Buffer.from(text)
  return {
    length: bytes.length,
    async *open() {
      yield bytes
    }
  }
}
