import type { LogicalDatabase } from '../../types/databases.js'
import type { BulkResult } from '../couch/bulk-body.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { CHUNK_TYPE } from '../own-documents.js'
import { partId, TAKEN_IDS } from './ids.js'
import type { ChunkDocument } from './layout.js'

/** Most documents made in one request. One by one, making them takes a third of the time of storing. */
const AT_A_TIME = 8

interface ChunkPlacesOptions {
  db: CouchDatabase
  backup: string
  database: LogicalDatabase
  first: number
}

/** Makes the documents to which chunks are attached, some at a time. */
export class ChunkPlaces {
  readonly #options: ChunkPlacesOptions
  #next: number
  #made = 0
  /** Ids in a row that other documents have taken. */
  #conflicts = 0
  readonly #free: Revision[] = []
  #making: Promise<void> | undefined

  constructor(options: ChunkPlacesOptions) {
    this.#options = options
    this.#next = options.first
  }

  get next(): number {
    return this.#next
  }

  /** Returns a document that nothing is attached to. */
  async take(): Promise<Revision> {
    for (;;) {
      const place = this.#free.shift()
      if (place) return place
      this.#making ??= this.#make().finally(() => {
        this.#making = undefined
      })
      await this.#making
    }
  }

  /** Makes as many as were made before, so that a small backup makes few in vain. */
  async #make(): Promise<void> {
    const count = Math.min(AT_A_TIME, Math.max(1, this.#made))
    const { db, backup, database } = this.#options
    const documents = Array.from({ length: count }, () => {
      const index = this.#next++
      const document: ChunkDocument = { type: CHUNK_TYPE, backup_id: backup, database, index }
      return Buffer.from(JSON.stringify({ _id: partId('chunk', backup, database, index), ...document }))
    })
    for (const result of await db.bulkDocs(documents)) this.#add(result)
    this.#made += count
  }

  #add({ id, rev, error, reason }: BulkResult): void {
    if (rev !== undefined) {
      this.#conflicts = 0
      this.#free.push({ id, rev })
      return
    }
    // A conflict: another document has the id, or the reply to an earlier request was lost.
    if (error !== 'conflict' || ++this.#conflicts >= TAKEN_IDS)
      throw new CouchError(id, { error: error ?? 'bad_answer', reason: reason ?? 'no revision was made' })
  }
}
