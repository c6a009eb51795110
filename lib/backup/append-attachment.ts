import type { CouchDatabase } from '../couch/database.js'
import { isConflict, isNotFound } from '../couch/errors.js'
import { BackupNotFoundError, InvalidParameterError } from '../errors.js'

/** Longest name in bytes of UTF-8: 128 characters, whatever they are. */
const MAX_NAME = 512
const CONTENT_TYPE = /^[\x20-\x7e]{1,255}$/
const DEFAULT_TYPE = 'application/octet-stream'
/** A running backup writes its header at intervals; every attempt needs the revision of the moment. */
const ATTEMPTS = 20

/** @throws InvalidParameterError */
export function checkAttachmentName(name: string): void {
  if (name === '') throw new InvalidParameterError('att_name is empty')
  if (name.startsWith('_')) throw new InvalidParameterError('att_name must not begin with an underscore')
  if (Buffer.byteLength(name) > MAX_NAME)
    throw new InvalidParameterError(`att_name is longer than ${MAX_NAME} bytes`)
  if (!name.isWellFormed()) throw new InvalidParameterError('att_name is not well-formed Unicode')
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (/[\u0000-\u001f\u007f]/.test(name)) throw new InvalidParameterError('att_name holds control characters')
}

/**
 * Stores an attachment with a backup's header, replacing one of the same name.
 * @throws InvalidParameterError, BackupNotFoundError, CouchError
 */
export async function putAttachment(
  db: CouchDatabase,
  backup: string,
  name: string,
  data: Buffer,
  contentType = DEFAULT_TYPE
): Promise<void> {
  checkAttachmentName(name)
  if (!CONTENT_TYPE.test(contentType))
    throw new InvalidParameterError('contentType must be printable ASCII, 255 characters at most')
  for (let attempt = 1; ; attempt++) {
    const rev = await db.revision(backup)
    if (rev === null) throw new BackupNotFoundError(backup)
    try {
      await db.putAttachment(backup, name, rev, contentType, data)
      return
    } catch (error) {
      if (!isConflict(error) || attempt >= ATTEMPTS) throw error
    }
    if (await isStored(db, backup, name, data, contentType)) return
    await db.client.afterConflict(attempt)
  }
}

/** Whether a conflict was with ourselves: the reply to the write was lost. */
async function isStored(
  db: CouchDatabase,
  backup: string,
  name: string,
  data: Buffer,
  contentType: string
): Promise<boolean> {
  return db.client.retry(async () => {
    try {
      const { headers, body } = await db.attachment(backup, name)
      let at = 0
      for await (const piece of body) {
        if (!data.subarray(at, at + piece.length).equals(piece)) return false
        at += piece.length
      }
      return at === data.length && headers['content-type'] === contentType
    } catch (error) {
      if (isNotFound(error)) return false
      throw error
    }
  })
}
