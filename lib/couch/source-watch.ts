import { type CouchDatabase, type DatabaseInfo, isReplicated } from './database.js'
import { CouchError, isMissing } from './errors.js'

/**
 * Tells whether a database is still the one whose reading began: the feed does not show that it was created
 * again, purged, or went back. Replicas of a shard count purges and changes by themselves, so the numbers are
 * compared only where there is one replica.
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

  /** Notes the state, if any. Call it before each reading from the start. @throws CouchError if it is gone */
  async begin(): Promise<DatabaseInfo | null> {
    const info = this.#begun ? await this.#infoAfter(this.#source) : await this.#source.find()
    if (!info) return null
    this.#begun = true
    if (info.instance_start_time !== this.#created) this.#purges = 0
    this.#created = info.instance_start_time
    this.#purges = Math.max(this.#purges, numberIn(info.purge_seq))
    return info
  }

  /** Returns whether the database became another; call it after the last read. @throws CouchError if gone */
  async changed(since: string): Promise<boolean> {
    return this.#isAnother(await this.#infoAfter(this.#source), since)
  }

  /** Returns whether reading failed because the database became another one. @throws CouchError if gone */
  async explains(error: unknown, since: string): Promise<boolean> {
    if (!(error instanceof CouchError)) return false
    // If the connection was to blame, its retries are used up already.
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
export const numberIn = (sequence: string | number | undefined): number =>
  Number.parseInt(String(sequence), 10) || 0
