import type { CouchDatabase, Revision } from '../couch/database.js'
import { Digesting } from '../couch/digest.js'
import { CouchError, isConflict } from '../couch/errors.js'
import { type StreamedBody, tellingSent } from '../couch/requests.js'
import type { Retrier } from '../couch/retry.js'
import { sendOrFind } from '../couch/send-or-find.js'
import type { ChunkPlaces } from './chunk-places.js'
import { type ChunkSeal, contextOf, sealedAttachment, sealedBody } from './chunk-seal.js'
import { type Codec, newHash } from './codec.js'
import type { ChunkDocument, ChunkEntry } from './layout.js'

export type StoredChunk = Pick<ChunkEntry, 'id' | 'rev' | 'stored' | 'sha256' | 'sealed'>

interface FoundChunk extends ChunkDocument {
  _attachments?: Record<string, { length?: number; digest?: string }>
}

/** Tries once to store a chunk. It is stored when the database then shows the sent length and MD5. */
export class ChunkAttempt {
  /** Makes single attempts: the next attempt has another document, and looks are counted with it. */
  readonly #once: CouchDatabase
  readonly #attachment: Codec['attachment']
  readonly #document: Revision
  readonly #body: StreamedBody
  #sent: { length: number; md5: string; sha256: string } | undefined

  /** @param document the chunk's document without its attachment */
  constructor(db: CouchDatabase, attachment: Codec['attachment'], document: Revision, body: StreamedBody) {
    this.#once = db.once
    this.#attachment = attachment
    this.#document = document
    this.#body = body
  }

  /** Sends and looks for the attachment. @returns `null` when not stored, after a wait @throws CouchError */
  async store(retrier: Retrier): Promise<StoredChunk | null> {
    const failure = await this.#send()
    // The database may still be about to store what it has not answered.
    if (failure) await retrier.failed(failure)
    const stored = await this.#found(retrier)
    if (!stored && !failure) await retrier.failed(notWhole(this.#document.id))
    return stored
  }

  /** @returns why there is no answer; a conflict is one, since it may be with this attempt's own request */
  async #send(): Promise<unknown> {
    this.#sent = undefined
    const { id, rev } = this.#document
    const { length } = this.#body
    const { control, idle } = this.#once.client.settings
    const { name, contentType } = this.#attachment
    try {
      await sendOrFind<unknown>({
        send: (sent, deadline) => {
          const body = { length, open: () => tellingSent(this.#hashed(), sent) }
          return this.#once.putAttachment(id, name, rev, contentType, body, deadline)
        },
        find: () => this.#find(),
        // The database stores a stream as it comes, but one of any length.
        patience: length === undefined ? idle : control
      })
    } catch (error) {
      return isConflict(error) ? undefined : error
    }
    return undefined
  }

  async *#hashed(): AsyncGenerator<Uint8Array> {
    const md5 = new Digesting()
    const hash = newHash()
    let length = 0
    for await (const piece of this.#body.open()) {
      md5.add(piece)
      hash.update(piece)
      length += piece.length
      yield piece
    }
    this.#sent = { length, md5: md5.end(), sha256: hash.digest('hex') }
  }

  async #found(retrier: Retrier): Promise<StoredChunk | null> {
    for (;;) {
      try {
        return await this.#find()
      } catch (error) {
        await retrier.failed(error)
      }
    }
  }

  async #find(): Promise<StoredChunk | null> {
    if (!this.#sent) return null
    const { id } = this.#document
    const { length, md5, sha256 } = this.#sent
    const document = await this.#once.get<FoundChunk>(id)
    const found = document?._attachments?.[this.#attachment.name]
    if (!document || found?.length !== length || found.digest !== md5) return null
    return { id, rev: document._rev, stored: length, sha256 }
  }
}

interface ChunkTarget {
  db: CouchDatabase
  attachment: Codec['attachment']
  places: ChunkPlaces
  seal?: ChunkSeal
}

/** Stores a chunk. Each attempt has its own document, so that a late one changes no other, and its own seal. */
export async function putChunk(
  body: StreamedBody,
  { db, attachment, places, seal }: ChunkTarget
): Promise<StoredChunk> {
  const retrier = db.client.retrier()
  for (;;) {
    const place = await places.take()
    const attempt = seal
      ? new ChunkAttempt(
          db,
          sealedAttachment(attachment.name),
          place,
          sealedBody(body, seal.key, contextOf(place.id, seal.database))
        )
      : new ChunkAttempt(db, attachment, place, body)
    const stored = await attempt.store(retrier)
    if (stored) return { ...stored, ...(seal && { sealed: seal.key.id }) }
  }
}

const notWhole = (id: string) =>
  new CouchError(id, { error: 'truncated', reason: 'the chunk was not stored whole', retryable: true })
