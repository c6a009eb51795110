import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { DamagedBackupError, UnknownLayoutError } from '../errors.js'
import { documentSteps } from '../json/document.js'
import { isBackupId, isOwnDocument } from '../own-documents.js'
import { inTurns } from '../waits/steps.js'
import { BACKUP_RANGE, partRanges, rangesOf } from './ids.js'
import { LAYOUT, type StoredDatabase } from './layout.js'
import { readEntries } from './manifests.js'
import { readHeader } from './read-header.js'

/** Parts read or deleted in one request. */
const AT_A_TIME = 500
/** Ranges of ids that are read at a time. */
const LOOKS_IN_FLIGHT = 4

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
    for (const parts of groupsOf(left)) await this.#db.deleteRevisions(await this.#own(parts))
  }

  /** Checks that parts are there at their revisions, whoever made them. @throws DamagedBackupError */
  async checkThere(parts: readonly Revision[]): Promise<void> {
    const unseen = new Map(parts.map(({ id, rev }) => [id, rev]))
    const ranges = rangesOf(parts.map(({ id }) => id))
    const look = async () => {
      for (let range = ranges.pop(); range; range = ranges.pop())
        for (const { id, rev } of await this.#db.rows(range)) if (unseen.get(id) === rev) unseen.delete(id)
    }
    await Promise.all(Array.from({ length: LOOKS_IN_FLIGHT }, look))
    await this.#confirm([...unseen].map(([id, rev]) => ({ id, rev })))
  }

  /** Reads parts that one replica did not show: a majority must have them. @throws DamagedBackupError */
  async #confirm(unseen: readonly Revision[]): Promise<void> {
    for (const parts of groupsOf(unseen)) {
      const revisions = new Map(parts.map(({ id, rev }) => [id, rev]))
      const asked = parts.map(({ id }) => ({ id }))
      for await (const { id, doc } of this.#db.bulkGet(asked, { attachments: false })) {
        const current = doc && (await inTurns(documentSteps(doc)))
        if (current?.rev !== revisions.get(id)) throw new DamagedBackupError('chunk', id, 'is missing')
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
    const parts = new Map<string, Revision>()
    for await (const made of this.#madeBy(backup, database))
      for (const part of await this.#own(made)) parts.set(part.id, part)
    // All headers are read only where there is something to delete.
    if (parts.size === 0) return []
    try {
      for (const { id } of await headerRevisions(this.#db))
        for (const listed of await this.#listedBy(id)) parts.delete(listed)
    } catch (error) {
      if (!isOfHeader(error)) throw error
      // A header that cannot be read whole may list any of them.
      return []
    }
    return [...parts.values()]
  }

  /** @throws DamagedBackupError, UnknownLayoutError when the header cannot be read whole */
  async #listedBy(header: string): Promise<string[]> {
    const head = await readHeader(this.#db, header)
    if (!head?.storage) return []
    if (!(head.storage.layout <= LAYOUT)) throw new UnknownLayoutError(header)
    const listed: string[] = []
    for (const stored of Object.values(head.storage.databases ?? {})) {
      if (!areEntries(stored?.manifests, stored?.chunks, stored?.superseded, stored?.index ?? []))
        throw new DamagedBackupError('header', header, 'does not list its chunks')
      const entries = [
        ...stored.manifests,
        ...(await readEntries(this.#db, stored)),
        ...stored.superseded,
        ...(stored.index ?? [])
      ]
      for (const { id } of entries) listed.push(id)
    }
    return listed
  }

  /** Finds a backup's parts by their ids: what there may be to clean up, never what it consists of. */
  async *#madeBy(backup: string, database?: LogicalDatabase): AsyncGenerator<Revision[]> {
    for (const range of partRanges(backup, database)) yield* groupsOf(await this.#db.rows(range))
  }

  /** Returns the documents that are the plugin's own: the console's may have such ids as well. */
  async #own(revisions: readonly Revision[]): Promise<Revision[]> {
    const own: Revision[] = []
    for await (const { id, doc } of this.#db.bulkGet(revisions, { attachments: false })) {
      const current = doc && (await inTurns(documentSteps(doc)))
      if (current?.rev && !current.deleted && isOwnDocument(id, current.type))
        own.push({ id, rev: current.rev })
    }
    return own
  }
}

/** Returns the documents of any database whose ids are those of backups, whatever they are. */
export const headerRevisions = async (db: CouchDatabase): Promise<Revision[]> =>
  (await db.rows(BACKUP_RANGE)).filter(({ id }) => isBackupId(id))

/** Returns whether a header itself is why it could not be read: another attempt would find the same. */
const isOfHeader = (error: unknown): boolean =>
  error instanceof DamagedBackupError ||
  error instanceof UnknownLayoutError ||
  // One that is too large: any other refusal is of all requests.
  (error instanceof CouchError && error.error === 'bad_answer' && !error.retryable)

/** Checks what somebody may have written into a header by hand. */
const areEntries = (...lists: unknown[]): boolean =>
  lists.every((list) => Array.isArray(list) && list.every((entry) => typeof entry?.id === 'string'))

function* groupsOf(parts: readonly Revision[]): Generator<Revision[]> {
  for (let i = 0; i < parts.length; i += AT_A_TIME) yield parts.slice(i, i + AT_A_TIME)
}
