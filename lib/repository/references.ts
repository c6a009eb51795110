import type { CouchDatabase, Revision } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { DamagedBackupError, UnknownLayoutError } from '../errors.js'
import { fingerprint } from '../ids/fingerprint.js'
import { FingerprintTable } from '../ids/fingerprint-table.js'
import { isBackupId } from '../own-documents.js'
import { atATime } from '../waits/at-a-time.js'
import { sharedTurn } from '../waits/steps.js'
import { databasesListed, kindOfStorage } from './header-storage.js'
import { BACKUP_RANGE, makerOf } from './ids.js'
import { entryGroups } from './manifests.js'
import { readHeader } from './read-header.js'

/** Headers read at a time: each may have some hundred kilobytes, and its manifests. */
export const HEADERS_AT_A_TIME = 4
/** Words of an entry: a fingerprint, and one that tells that the entry is used. */
const WORDS = 3
/** Ids noted in one step: less than a millisecond. */
const NOTED = 200

/**
 * Knows which parts headers list, whoever made them: 16 to 32 bytes for each that matters. An id may be
 * taken for another one, once in 2^64: a part is then kept that nobody lists, never the other way round.
 */
export class References {
  readonly #db: CouchDatabase
  readonly #matters: (maker: string) => boolean
  readonly #listed = new FingerprintTable(WORDS)
  /** Revisions of the headers that were read, by id. */
  readonly #read = new Map<string, string>()

  /** @param matters returns whether to note which of the parts that a backup has made are listed */
  constructor(db: CouchDatabase, matters: (maker: string) => boolean) {
    this.#db = db
    this.#matters = matters
  }

  /**
   * Reads the headers that have changed since it did so last, all at first, but for those of `without`.
   * @throws DamagedBackupError, UnknownLayoutError for a header that cannot be read whole: it may list anything
   */
  async update(without: Pick<ReadonlySet<string>, 'has'> = new Set()): Promise<void> {
    const changed = (await headerRevisions(this.#db)).filter(
      ({ id, rev }) => !without.has(id) && this.#read.get(id) !== rev
    )
    await atATime(HEADERS_AT_A_TIME, changed, async ({ id, rev }) => {
      for await (const parts of listedBy(this.#db, id)) await this.#note(parts)
      this.#read.set(id, rev)
    })
  }

  has(part: string): boolean {
    return this.#listed.isUsed(this.#listed.find(fingerprint(part)))
  }

  async #note(parts: readonly { id: string }[]): Promise<void> {
    for (const [i, { id }] of parts.entries()) {
      if (i % NOTED === 0) await sharedTurn()
      const maker = makerOf(id)
      if (maker === undefined || !this.#matters(maker)) continue
      this.#listed.setWord(this.#listed.place(fingerprint(id)), WORDS - 1, 1)
    }
  }
}

/** Returns the documents of any database whose ids are those of backups, whatever they are. */
export const headerRevisions = async (db: CouchDatabase): Promise<Revision[]> =>
  (await db.rows(BACKUP_RANGE)).filter(({ id }) => isBackupId(id))

/** Yields all parts that a header lists, a manifest's at a time; none where there is no header. */
async function* listedBy(db: CouchDatabase, header: string): AsyncGenerator<readonly { id: string }[]> {
  try {
    yield* readListed(db, header)
  } catch (error) {
    if (error instanceof UnknownLayoutError || !isOfHeader(error)) throw error
    const reason = `may list any chunk, since it cannot be read whole (${error.message})`
    throw Object.assign(new DamagedBackupError('header', header, reason), { cause: error })
  }
}

async function* readListed(db: CouchDatabase, header: string): AsyncGenerator<readonly { id: string }[]> {
  const head = await readHeader(db, header)
  if (!head || head.storage === undefined) return
  if (kindOfStorage(head.storage) === 'later') throw new UnknownLayoutError(header)
  const databases = databasesListed(head.storage)
  if (!databases) {
    // A backup that failed holds nothing.
    if (head.error) return
    throw new DamagedBackupError('header', header, 'does not list its chunks')
  }
  for (const stored of databases) {
    yield stored.manifests
    yield* entryGroups(db, stored)
    yield stored.superseded
    yield stored.index ?? []
  }
}

/** Returns whether a header itself is why it could not be read: another attempt would find the same. */
export const isOfHeader = (error: unknown): error is Error =>
  error instanceof DamagedBackupError ||
  error instanceof UnknownLayoutError ||
  // One that is too large: any other refusal is of all requests.
  (error instanceof CouchError && error.error === 'bad_answer' && !error.retryable)
