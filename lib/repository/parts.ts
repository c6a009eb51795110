import type { LogicalDatabase } from '../../types/databases.js'
import type { CouchDatabase, Revision } from '../couch/database.js'
import { DamagedBackupError } from '../errors.js'
import { documentSteps } from '../json/document.js'
import { isOwnDocument } from '../own-documents.js'
import { inTurns } from '../waits/steps.js'
import { partRanges } from './ids.js'
import type { StoredDatabase } from './layout.js'
import { readEntries } from './manifests.js'

/** Parts read or deleted in one request. */
const AT_A_TIME = 500

/**
 * Looks after chunks and manifests. A part belongs to the headers that list it, by themselves or in a
 * manifest; its id only says which backup made it.
 */
export class Parts {
  readonly #db: CouchDatabase

  constructor(db: CouchDatabase) {
    this.#db = db
  }

  /**
   * Checks that every chunk in `databases` is there at the revision that was written, and deletes what
   * attempts of this backup have left.
   * @throws DamagedBackupError
   */
  async check(backup: string, databases: readonly StoredDatabase[]): Promise<void> {
    const unseen = new Map<string, string>()
    for (const stored of databases) {
      const entries = [...(await readEntries(this.#db, stored)), ...stored.superseded]
      for (const { id, rev } of entries) unseen.set(id, rev)
    }
    const manifests = databases.flatMap(({ manifests }) => manifests.map(({ id }) => id))
    const listed = new Set([...unseen.keys(), ...manifests])
    const left: Revision[] = []
    for await (const parts of this.#madeBy(backup)) {
      for (const part of parts) {
        if (unseen.get(part.id) === part.rev) unseen.delete(part.id)
        if (!listed.has(part.id)) left.push(part)
      }
    }
    await this.#confirm([...unseen].map(([id, rev]) => ({ id, rev })))
    for (const parts of groupsOf(left)) await this.#delete(parts)
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

  async has(backup: string): Promise<boolean> {
    for await (const parts of this.#madeBy(backup)) if ((await this.#own(parts)).length > 0) return true
    return false
  }

  /**
   * Deletes the parts that a backup has made, all or those of one database; no header may list them. Parts
   * that a lagging replica does not show stay until the backup is looked after again, or its parts are
   * checked.
   */
  async remove(backup: string, database?: LogicalDatabase): Promise<void> {
    for await (const parts of this.#madeBy(backup, database)) await this.#delete(parts)
  }

  /**
   * Finds the parts that attempts of one backup have made, by their ids: no list holds those of failed
   * attempts. The result tells what to clean up, never what a backup consists of.
   */
  async *#madeBy(backup: string, database?: LogicalDatabase): AsyncGenerator<Revision[]> {
    for (const range of partRanges(backup, database)) yield* groupsOf(await this.#db.rows(range))
  }

  async #delete(parts: readonly Revision[]): Promise<void> {
    await this.#db.deleteRevisions(await this.#own(parts))
  }

  /** Returns those that are the plugin's own: documents of the console may have such ids. */
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

function* groupsOf(parts: readonly Revision[]): Generator<Revision[]> {
  for (let i = 0; i < parts.length; i += AT_A_TIME) yield parts.slice(i, i + AT_A_TIME)
}
