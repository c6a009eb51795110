import { type CouchDatabase, type DatabaseInfo, isReplicated } from './database.js'
import { CouchError, isMissing } from './errors.js'

/**
 * Tells whether a database is still the one whose reading began. One that was deleted and created again, that lost
 * documents to a purge, or whose sequences went back, tells nothing of that in its changes feed. Copies of a shard count
 * purges and changes each in its own way, and one of them answers: only where there is one are the numbers compared.
 */
export class SourceWatch {
  readonly #source: CouchDatabase
  #begun = false
  #created: string | undefined
  /** The largest number of purges seen. */
  #purges = 0

  constructor(source: CouchDatabase) {
    this.#source = source
  }

  /**
   * Notes what the database is. Call it before the first request that reads documents, each time from the start.
   * @returns `null` when there is no such database
   * @throws CouchError when the database is gone that there was before
   */
  async begin(): Promise<DatabaseInfo | null> {
    const info = this.#begun ? await this.#infoAfter(this.#source) : await this.#source.find()
    if (!info) return null
    this.#begun = true
    if (info.instance_start_time !== this.#created) this.#purges = 0
    this.#created = info.instance_start_time
    this.#purges = Math.max(this.#purges, numberIn(info.purge_seq))
    return info
  }

  /**
   * Returns whether the database has become another one. Call it after the last request that reads documents.
   * @param since the update sequence that was read up to
   * @throws CouchError when the database is gone
   */
  async changed(since: string): Promise<boolean> {
    return this.#isAnother(await this.#infoAfter(this.#source), since)
  }

  /**
   * Returns whether reading failed because the database became another one: what was named before cannot be read any more.
   * @throws CouchError when the database is gone
   */
  async explains(error: unknown, since: string): Promise<boolean> {
    if (!(error instanceof CouchError)) return false
    // Retries have been used up already, where it is the connection.
    try {
      return this.#isAnother(await this.#infoAfter(this.#source.once), since)
    } catch (failure) {
      if (isMissing(failure)) throw failure
      return false
    }
  }

  async #infoAfter(source: CouchDatabase): Promise<DatabaseInfo> {
    const info = await source.find()
    if (info) return info
    throw new CouchError(`database "${source.name}"`, {
      status: 404,
      error: 'not_found',
      reason: 'it was deleted while it was read'
    })
  }

  #isAnother(info: DatabaseInfo, since: string): boolean {
    if (info.instance_start_time !== this.#created) return true
    if (isReplicated(info)) return false
    const purges = numberIn(info.purge_seq)
    const purged = purges > this.#purges
    this.#purges = Math.max(this.#purges, purges)
    return purged || numberIn(info.update_seq ?? since) < numberIn(since)
  }
}

/** Returns the number that a sequence begins with; what follows is opaque. 0 where the server tells none. */
const numberIn = (sequence: string | number | undefined): number => Number.parseInt(String(sequence), 10) || 0
