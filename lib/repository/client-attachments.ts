import { attachmentBase64, stubOf } from '../couch/attachments.js'
import type { CouchDatabase } from '../couch/database.js'
import type { StoredHeader } from './layout.js'
import type { LegacyHeader } from './read-header.js'

/** What a client has appended to a backup. */
export interface ClientAttachment {
  name: string
  /** Bytes; `undefined` where a client has stored them compressed. */
  length: number | undefined
}

/** Returns what clients have appended to a backup, in the order in which its header tells it. */
export const clientAttachments = ({
  _attachments: stubs = {}
}: StoredHeader | LegacyHeader): ClientAttachment[] =>
  Object.entries(stubs).map(([name, stub]) => ({ name, length: stubOf(name, stub).length }))

/** Streams an attachment in base64. */
export const attachmentText = (
  db: CouchDatabase,
  { _id: id, _rev: rev, _attachments: stubs = {} }: StoredHeader | LegacyHeader,
  name: string
): AsyncGenerator<Uint8Array> => attachmentBase64(db, { id, rev }, stubOf(name, stubs[name]))
