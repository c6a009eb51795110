import type { DocumentScope } from 'nano'
import type { FetchedDocument } from './database.js'
import { bytesOf } from './seed.js'

/** Documents that writes choose from. */
export const DOCUMENTS = 2500

export interface Written {
  id: string
  rev: string
  /** The sequence of the database after this write, if it is a number. */
  seq: number
  /** The written content, or `null` for a deletion. */
  doc: { v: number; type: string; attached: boolean } | null
}

/** Writes one document after another, and keeps a log of the writes. */
export class Writer {
  readonly log: Written[] = []
  readonly current = new Map<string, Written>()
  readonly #db: DocumentScope<unknown>
  readonly #sequence: () => Promise<number>
  readonly #waiting: { until: number; resolve: () => void }[] = []
  #random = 1
  #done = false

  constructor(db: DocumentScope<unknown>, sequence: () => Promise<number>) {
    this.#db = db
    this.#sequence = sequence
  }

  async load(count: number): Promise<void> {
    for (let from = 0; from < count; from += 500) {
      const docs = Array.from({ length: Math.min(500, count - from) }, (_, i) => {
        const id = `doc_${from + i}`
        return { _id: id, ...this.#body(id, 0, 'fabric-peer', (from + i) % 40 === 0) }
      })
      for (const [i, { id, rev }] of (await this.#db.bulk({ docs })).entries()) {
        this.#note({
          id: id!,
          rev: rev!,
          seq: from + i + 1,
          doc: { v: 0, type: 'fabric-peer', attached: (from + i) % 40 === 0 }
        })
      }
    }
  }

  async run(writes: number): Promise<void> {
    try {
      for (let n = 1; n <= writes; n++) {
        await this.#write(n)
        for (const { until, resolve } of this.#waiting) if (this.log.length >= until) resolve()
      }
    } finally {
      this.#done = true
      for (const { resolve } of this.#waiting) resolve()
    }
  }

  /** Resolves after so many more writes, or when the writer has stopped. */
  async writes(count: number): Promise<void> {
    if (this.#done) return
    await new Promise<void>((resolve) => {
      this.#waiting.push({ until: this.log.length + count, resolve })
    })
  }

  async #write(n: number): Promise<void> {
    const die = this.#die(100)
    const fresh = die < 20
    const id = fresh ? `new_${n}` : `doc_${this.#die(DOCUMENTS)}`
    const before = this.current.get(id)
    const rev = before?.doc ? before.rev : undefined
    const remove = !fresh && die < 45 && rev !== undefined
    const doc = { v: n, type: die > 96 ? 'pillow_talk_doc' : 'fabric-peer', attached: die % 20 === 7 }
    const reply = remove
      ? await this.#db.destroy(id, rev)
      : await this.#db.insert(
          { ...this.#body(id, n, doc.type, doc.attached), ...(rev && { _rev: rev }) } as never,
          id
        )
    this.#note({ id, rev: reply.rev, seq: await this.#sequence(), doc: remove ? null : doc })
  }

  #body(id: string, v: number, type: string, attached: boolean): object {
    const data = bytesOf(`${id} ${v}`, 300).toString('base64')
    return { type, v, ...(attached && { _attachments: { a: { content_type: 'image/png', data } } }) }
  }

  #note(written: Written): void {
    this.log.push(written)
    this.current.set(written.id, written)
  }

  #die(sides: number): number {
    this.#random = (Math.imul(this.#random, 1_103_515_245) + 12_345) >>> 0
    return (this.#random >>> 8) % sides
  }
}

const attachmentOf = ({ _attachments }: FetchedDocument) => _attachments?.a?.data

/** Returns the content that the log tells of a document. */
export const said = (id: string, { rev, doc }: Written) => ({
  rev,
  v: doc?.v,
  attachment: doc?.attached ? bytesOf(`${id} ${doc.v}`, 300).toString('base64') : undefined
})

/** Returns the content of a document that was read, in the form of {@link said}. */
export const read = (document: FetchedDocument) => ({
  rev: document._rev,
  v: document.v,
  attachment: attachmentOf(document)
})

/** Returns the state of the database at a sequence, by the log, without what backups leave out. */
export function stateAt(log: readonly Written[], seq: number) {
  const state = new Map<string, ReturnType<typeof said>>()
  for (const written of log) {
    if (written.seq > seq) continue
    if (written.doc === null || written.doc.type === 'pillow_talk_doc') state.delete(written.id)
    else state.set(written.id, said(written.id, written))
  }
  return state
}

/** Returns a map in the order of its keys. */
export const sorted = <T>(map: Map<string, T>) => new Map([...map].sort(([a], [b]) => (a < b ? -1 : 1)))
