import type { BulkResult } from '../couch/bulk-body.js'
import { type CouchDatabase, isReplicated } from '../couch/database.js'
import { type AttachmentPart, inPieces } from '../couch/multipart.js'
import { type FindableWrite, sendOrFind } from '../couch/send-or-find.js'
import { fitsHead, isPrintable } from '../couch/target.js'
import { type DocumentBytes, documentSteps, type MemberBounds } from '../json/document.js'
import { inTurns, type Steps } from '../waits/steps.js'
import { type BaseRevision, bytesOn, piecesOn } from './decision.js'
import type { LargeDocument } from './large-document.js'
import { sameLarge } from './same-content.js'
import { isLive } from './source.js'
import type { WriteRequests } from './write-requests.js'

/** Bytes of attachments sent to a cluster inside the JSON, all of which each storing node holds in memory. */
const MAX_INLINE = 64 * 1024 * 1024

/** Writes large documents into one database, each as a stream. */
export class LargeWriter {
  readonly #db: CouchDatabase
  readonly #requests: WriteRequests
  /** Makes one attempt of each call: what fails is counted by the requests that write. */
  readonly #once: CouchDatabase
  #clustered: boolean | undefined

  constructor(db: CouchDatabase, requests: WriteRequests) {
    this.#db = db
    this.#requests = requests
    this.#once = db.once
  }

  /** Writes one document. @throws CouchError when the database cannot be worked with */
  async write(document: LargeDocument, base: BaseRevision): Promise<BulkResult> {
    const { id } = document.head
    const write = this.#writeOf(document, base, await this.#partsOf(document))
    let attempts = 0
    const { answer, refusal } = await this.#requests.send(1, async () => {
      const found = attempts++ > 0 ? await write.find() : null
      return found ?? sendOrFind(write)
    })
    if (!refusal) return answer
    if (refusal.status !== 409) await this.#requests.blame(refusal)
    return { id, error: refusal.status === 409 ? 'conflict' : refusal.error, reason: refusal.reason }
  }

  /** Returns multipart attachments; `null` on a cluster, which may never answer such a request. */
  async #partsOf(document: LargeDocument): Promise<AttachmentPart[] | null> {
    const parts = await inTurns(multipartParts(document))
    const bytes = document.parts.reduce((sum, { length }) => sum + length, 0)
    return parts && bytes <= MAX_INLINE && (await this.#isClustered()) ? null : parts
  }

  async #isClustered(): Promise<boolean> {
    this.#clustered ??= isReplicated(await this.#db.info())
    return this.#clustered
  }

  #writeOf(
    document: LargeDocument,
    base: BaseRevision,
    parts: readonly AttachmentPart[] | null
  ): FindableWrite<BulkResult> {
    const { head } = document
    return {
      send: async (sent, deadline) => {
        const options = { newEdits: base.kind !== 'kept', sent, deadline }
        // Inline: the database holds the whole request in its memory.
        if (!parts)
          return (await this.#once.putStream(() => inlineJson(document, base), options))[0] ?? { id: head.id }
        const json = await inTurns(piecesOn(base, head))
        const rev = await this.#once.putWithAttachments(head.id, json, parts, options)
        return { id: head.id, rev: rev ?? undefined }
      },
      find: () => this.#find(document, base),
      patience: this.#db.client.settings.idle
    }
  }

  async #find(document: LargeDocument, base: BaseRevision): Promise<BulkResult | null> {
    const { id } = document.head
    // A revision stands for its content.
    if (base.kind === 'kept') return (await this.#read(id, base.rev)) && { id, rev: base.rev }
    const current = await this.#read(id)
    if (!current || !isLive(current)) return null
    if (base.kind === 'over' && current.rev === base.rev) return null
    return (await sameLarge(this.#once, document, current)) ? { id, rev: current.rev } : null
  }

  async #read(id: string, rev?: string): Promise<DocumentBytes | null> {
    for await (const { doc } of this.#once.bulkGet([{ id, rev }], { attachments: false }))
      return doc && (await inTurns(documentSteps(doc)))
    return null
  }
}

/** Returns multipart attachments; `null` where a text does not fit into a URL or head. */
function* multipartParts({ head, parts }: LargeDocument): Steps<AttachmentPart[] | null> {
  const { id, rev = '' } = head
  if (!fitsHead(id) || !fitsHead(rev) || !isPrintable(rev)) return null
  const all: AttachmentPart[] = []
  for (const part of parts) {
    const { name, contentType } = part
    if (contentType === null || !fitsHead(name) || !fitsHead(contentType)) return null
    all.push({ ...part, contentType })
    yield
  }
  return all
}

async function* inlineJson({ head, parts }: LargeDocument, base: BaseRevision): AsyncGenerator<Buffer> {
  if (!head.attachments) {
    yield* inPieces(await inTurns(piecesOn(base, head)))
    return
  }
  const revised = await inTurns(bytesOn(base, head))
  const { bytes, attachments } = await inTurns(documentSteps(revised))
  const { start, end } = attachments as MemberBounds
  yield* inPieces([bytes.subarray(0, start)])
  let separator = '{'
  for (const { name, stub, openText } of parts) {
    yield Buffer.from(`${separator}${JSON.stringify(name)}:{${stub ? `${stub},` : ''}"data":"`)
    yield* openText()
    yield Buffer.from('"}')
    separator = ','
  }
  yield Buffer.from('}')
  yield* inPieces([bytes.subarray(end)])
}
