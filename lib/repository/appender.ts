import { attachmentTooLarge, checkAttachmentName } from '../bytes/attachment-bounds.js'
import { sameStream } from '../bytes/same-stream.js'
import type { CouchDatabase } from '../couch/database.js'
import { type CouchError, isChanged, isNotFound, isTooLarge } from '../couch/errors.js'
import type { AttachmentData } from '../couch/requests.js'
import { AppendBusyError, InvalidParameterError, TooLargeError } from '../errors.js'
import { DEFAULT_CONTENT_TYPE } from '../json/attachments.js'
import { LinkedAbort } from '../waits/linked-abort.js'
import type { Store } from './layout.js'
import type { LoadedBackup } from './loaded-backup.js'

const CONTENT_TYPE = /^[\x20-\x7e]{1,255}$/
/** How many appends may wait for those before them to the same backup. */
const MOST_WAITING = 256

export interface Append {
  id: string
  name: string
  data: AttachmentData
  contentType?: string
  /** Ends the wait for the header. */
  signal?: AbortSignal
}

export interface AppendLimits {
  attachmentBytes: number
  attachments: number
  attachmentsBytes: number
}

/** Settings of CouchDB that bound an attachment's request, by the errors that tell of them. */
const COUCH_LIMITS: Record<string, string> = {
  too_large: 'chttpd/max_http_request_size',
  attachment_too_large: 'couchdb/max_attachment_size',
  document_too_large: 'couchdb/max_document_size'
}

/** Names the limit, of CouchDB or of a proxy, that an attachment exceeds. */
function notTaken(error: CouchError, bytes: number): Error {
  const proxy = 'raise the limit of bodies of the proxy before CouchDB (nginx: client_max_body_size)'
  const [what, remedy] =
    error.status !== 413
      ? ['the connection to CouchDB was closed without an answer', proxy]
      : error.gateway
        ? ['a proxy or gateway before CouchDB answered 413', proxy]
        : ['CouchDB answered 413', `raise ${COUCH_LIMITS[error.error] ?? 'its limits'}`]
  const message = `body/attachment of ${bytes} bytes is too large for the database: ${what}; ${remedy}, or append less: limits.requestBytes does not divide an attachment`
  return new TooLargeError(message, { cause: error })
}

/** Stores attachments with the headers of backups. Appends to one backup run one after another. */
export class Appender {
  readonly #store: Store
  readonly #load: (id: string) => Promise<LoadedBackup>
  readonly #limits: AppendLimits
  readonly #wait: number

  /**
   * @param load reads a backup's header, or throws when there is none
   * @param wait milliseconds in which an append must get the header, and a try without a conflict
   */
  constructor(store: Store, load: (id: string) => Promise<LoadedBackup>, limits: AppendLimits, wait: number) {
    this.#store = store
    this.#load = load
    this.#limits = limits
    this.#wait = wait
  }

  /**
   * Stores an attachment, replacing one of the same name. @throws InvalidParameterError, TooLargeError,
   * AppendBusyError, CouchError, the reason of `signal`, and what `load` throws
   */
  async append(append: Append): Promise<void> {
    const { id, name, data, contentType = DEFAULT_CONTENT_TYPE, signal } = append
    checkAttachmentName(name)
    if (!CONTENT_TYPE.test(contentType))
      throw new InvalidParameterError('contentType must be printable ASCII, 255 characters at most')
    const { attachmentBytes } = this.#limits
    if (data.length > attachmentBytes) throw attachmentTooLarge(attachmentBytes)
    const busy = () => new AppendBusyError(id)
    const patience = new LinkedAbort().follow(signal).after(this.#wait, busy)
    try {
      await this.#store.headerMutex.run(id, () => this.#put({ ...append, contentType }, patience.signal), {
        most: MOST_WAITING,
        full: busy,
        signal: patience.signal
      })
    } finally {
      patience.release()
    }
  }

  /** Tries again after conflicts with other instances. */
  async #put(append: Append & { contentType: string }, signal: AbortSignal): Promise<void> {
    const { id, name, contentType, data } = append
    const { db } = this.#store
    const put = async (attempt: number) => {
      const { revision, attachments } = await this.#load(id)
      // Bytes are read only where the header tells the same.
      const present = attachments.get(name)
      const mayBeThere = attempt > 1 && present?.length === data.length && present.contentType === contentType
      if (mayBeThere && (await isStored(db, append))) return
      signal.throwIfAborted()
      this.#checkRoom(append, attachments)
      try {
        await db.putAttachment(id, name, revision, contentType, data)
      } catch (error) {
        if (!isTooLarge(error)) throw error
        // Throws when the database does not answer at all, which may have cut the request off.
        if (error.status !== 413) await this.#load(id)
        throw notTaken(error, data.length)
      }
    }
    // Until `signal` ends. If the header is gone, the next attempt finds that out.
    await db.untilNoConflict(put, isChanged, Number.POSITIVE_INFINITY)
  }

  /** @throws TooLargeError */
  #checkRoom({ id, name, data }: Append, present: LoadedBackup['attachments']): void {
    const { attachments, attachmentsBytes } = this.#limits
    const bytes = data.length
    const others = [...present].filter(([other]) => other !== name)
    if (others.length >= attachments) {
      throw new TooLargeError(
        `backup "${id}" has ${others.length} attachments: limits.attachments allows ${attachments}`
      )
    }
    const taken = others.reduce((sum, [, { length = 0 }]) => sum + length, 0)
    if (taken + bytes > attachmentsBytes) {
      throw new TooLargeError(
        `backup "${id}" has ${taken} bytes of attachments: limits.attachmentsBytes allows ${attachmentsBytes}, and these are ${bytes} more`
      )
    }
  }
}

/** Returns whether a conflict was with ourselves: the reply to the write was lost. */
async function isStored(
  db: CouchDatabase,
  { id, name, contentType, data }: Append & { contentType: string }
): Promise<boolean> {
  try {
    const { headers, body } = await db.attachment(id, name)
    return (await sameStream(body, data.open())) && headers['content-type'] === contentType
  } catch (error) {
    if (isNotFound(error)) return false
    throw error
  }
}
