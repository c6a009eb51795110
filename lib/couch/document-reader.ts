import { InvalidDocumentError } from '../json/document.js'
import type { CouchDatabase } from './database.js'
import { CouchError, isStalled, mayBeOfOneDocument } from './errors.js'
import { halvesOf } from './request-size.js'
import type { Wanted } from './requests.js'
import { FOREGROUND } from './retry.js'
import type { FoundDocument } from './rows.js'

/** An id that no document needs to have: only whether there is an answer counts. */
const PROBE = 'db_backups_probe'

/** Documents that are tried patiently, and those in a row after whose silence the database is to blame. */
const PATIENCE = 3

export type ReadFailure = CouchError | InvalidDocumentError

export const isReadFailure = (error: unknown): error is ReadFailure =>
  mayBeOfOneDocument(error) || error instanceof InvalidDocumentError

export interface ReadDocument extends FoundDocument {
  failure?: ReadFailure
}

/** Reads documents so that one which cannot be read does not keep the others from being read. */
export class DocumentReader {
  readonly #db: CouchDatabase
  /** Gives up sooner: to find the document to blame, and whether there is an answer at all. */
  readonly #hasty: CouchDatabase
  /** Finds which documents of several keep silent: each attempt takes a time-out. */
  readonly #once: CouchDatabase
  #failures = 0
  /** Documents that kept silent since the last one that was read. */
  #silent = 0

  constructor(db: CouchDatabase) {
    this.#db = db
    this.#hasty = db.on(db.client.with({ retry: FOREGROUND }))
    this.#once = db.once
  }

  /** Reads documents as they arrive, in halves after a fault. @throws CouchError when nothing is answered */
  read(wanted: readonly Wanted[], options: { attachments: boolean }): AsyncGenerator<ReadDocument> {
    return this.#read(this.#failures < PATIENCE ? this.#db : this.#hasty, wanted, options)
  }

  async *#read(
    db: CouchDatabase,
    wanted: readonly Wanted[],
    options: { attachments: boolean }
  ): AsyncGenerator<ReadDocument> {
    const left = new Map(wanted.map((one) => [one.id, one]))
    let failure: unknown
    try {
      for await (const found of db.bulkGet(wanted, options)) {
        left.delete(found.id)
        this.#silent = 0
        yield found
      }
      return
    } catch (error) {
      failure = error
    }
    if (!isReadFailure(failure)) throw failure
    await this.confirmAnswers(failure)
    const rest = [...left.values()]
    const silent = isStalled(failure)
    if (rest.length === 1) {
      this.#failures++
      if (silent && ++this.#silent >= PATIENCE) throw failure
      yield { id: rest[0].id, doc: null, conflicts: [], failure }
      return
    }
    for (const part of halvesOf(rest)) yield* this.#read(this.#on(part.length, silent), part, options)
  }

  /** Returns the database to read with: one document is retried in full, unless several failed so. */
  #on(documents: number, silent: boolean): CouchDatabase {
    if (documents > 1) return silent ? this.#once : this.#hasty
    return this.#failures < PATIENCE ? this.#db : this.#hasty
  }

  /** Makes sure that the database answers, before a document is blamed. @throws `failure` when it does not */
  async confirmAnswers(failure: ReadFailure): Promise<void> {
    try {
      for await (const _ of this.#hasty.bulkGet([{ id: PROBE }], { attachments: false }));
    } catch (error) {
      throw error instanceof CouchError ? failure : error
    }
  }
}
