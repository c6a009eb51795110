import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { DamagedBackupError } from '../errors.js'
import { documentSteps } from '../json/document.js'
import { atATime } from '../waits/at-a-time.js'
import { inTurns } from '../waits/steps.js'
import { partRanges, rangesOf } from './ids.js'
import type { StoredDatabase } from './layout.js'
import { readEntries } from './manifests.js'
import { groupsOf, ownParts } from './part-documents.js'
import { isOfHeader, References } from './references.js'

/** Ranges of ids that are read at a time. */
const RANGES_AT_A_TIME = 4

/** Looks after chunks and manifests. A part belongs to the headers that list it; its id tells its maker. */
export class Parts {
  readonly #db: CouchDatabase

  constructor(db: CouchDatabase) {
    this.#db = db
  }

  /** Checks that all chunks are there, and deletes what attempts have left. @throws DamagedBackupError */
  async check(backup: string, databases: readonly StoredDatabase[]): Promise<void> {
    const listed = new Map<string, string>()
    for (const stored of databases) {
      const entries = [...(await readEntries(this.#db, stored)), ...(stored.index ?? [])]
      for (const { id, rev } of entries) listed.set(id, rev)
    }
    const manifests = new Set(databases.flatMap(({ manifests }) => manifests.map(({ id }) => id)))
    const left: Revision[] = []
    for await (const parts of this.#madeBy(backup)) {
      for (const part of parts) {
        if (!listed.has(part.id) && !manifests.has(part.id)) left.push(part)
        if (listed.get(part.id) === part.rev) listed.delete(part.id)
      }
    }
    await this.checkThere([...listed].map(([id, rev]) => ({ id, rev })))
    // While it runs its header lists nothing, so that no other header can have them from it.
    for (const parts of groupsOf(left)) await this.#db.deleteRevisions(await ownParts(this.#db, parts))
  }

  /** Checks that parts are there at their revisions, whoever made them. @throws DamagedBackupError */
  async checkThere(parts: readonly Revision[]): Promise<void> {
    for await (const id of this.missing(parts)) throw new DamagedBackupError('chunk', id, 'is missing')
  }

  /** Yields the ids of the parts that are not there at their revisions, whoever made them. */
  async *missing(parts: readonly Revision[]): AsyncGenerator<string> {
    const unseen = new Map(parts.map(({ id, rev }) => [id, rev]))
    await atATime(RANGES_AT_A_TIME, rangesOf(parts.map(({ id }) => id)), async (range) => {
      for (const { id, rev } of await this.#db.rows(range)) if (unseen.get(id) === rev) unseen.delete(id)
    })
    yield* this.#unconfirmed([...unseen].map(([id, rev]) => ({ id, rev })))
  }

  /** Reads parts that one replica did not show. Yields the ids of those that a majority does not have. */
  async *#unconfirmed(unseen: readonly Revision[]): AsyncGenerator<string> {
    for (const parts of groupsOf(unseen)) {
      const revisions = new Map(parts.map(({ id, rev }) => [id, rev]))
      const asked = parts.map(({ id }) => ({ id }))
      for await (const { id, doc } of this.#db.bulkGet(asked, { attachments: false })) {
        const current = doc && (await inTurns(documentSteps(doc)))
        if (current?.rev !== revisions.get(id)) yield id
      }
    }
  }

  /** Returns whether there is a part that a backup has made and no header lists. */
  async has(backup: string): Promise<boolean> {
    return (await this.#unlisted(backup)).length > 0
  }

  /**
   * Deletes the parts of a backup that no header lists, all or those of one database. Parts that a lagging
   * replica does not show stay until a failed backup is looked after again, or until a complete one is
   * checked.
   */
  async remove(backup: string, database?: LogicalDatabase): Promise<void> {
    for (const parts of groupsOf(await this.#unlisted(backup, database)))
      await this.#db.deleteRevisions(parts)
  }

  /** Finds the parts that a backup has made and that no header lists, of this backup or another. */
  async #unlisted(backup: string, database?: LogicalDatabase): Promise<Revision[]> {
    const parts: Revision[] = []
    for await (const made of this.#madeBy(backup, database)) parts.push(...(await ownParts(this.#db, made)))
    // All headers are read only where there is something to delete.
    if (parts.length === 0) return []
    const references = new References(this.#db, (maker) => maker === backup)
    try {
      await references.update()
    } catch (error) {
      if (!isOfHeader(error)) throw error
      // A header that cannot be read whole may list any of them.
      return []
    }
    return parts.filter(({ id }) => !references.has(id))
  }

  /** Finds a backup's parts by their ids: what there may be to clean up, never what it consists of. */
  async *#madeBy(backup: string, database?: LogicalDatabase): AsyncGenerator<Revision[]> {
    for (const range of partRanges(backup, database)) yield* groupsOf(await this.#db.rows(range))
  }
}
