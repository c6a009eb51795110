import type { CouchDatabase } from '../couch/database.js'
import { isConflict } from '../couch/errors.js'
import { NOTICE_TYPE } from '../own-documents.js'

const NOTICE_PREFIX = 'athena_backup_notice_'
/** Range of ids that holds all notices. */
const NOTICE_RANGE = { from: NOTICE_PREFIX, to: `${NOTICE_PREFIX}\ufff0` } as const

const noticeId = (txId: string): string => `${NOTICE_PREFIX}${txId}`

/** Returns the id of the transaction that a notice is about. */
const transactionOf = (notice: string): string => notice.slice(NOTICE_PREFIX.length)

/** The transactions whose clients were not told of their end yet: one document each, beside the lease. */
export class Notices {
  readonly #db: CouchDatabase

  constructor(db: CouchDatabase) {
    this.#db = db
  }

  async addAll(txIds: readonly string[]): Promise<void> {
    for (const txId of txIds) await this.add(txId)
  }

  async add(txId: string): Promise<void> {
    try {
      await this.#db.put({ _id: noticeId(txId), type: NOTICE_TYPE })
    } catch (error) {
      // It is there: another attempt, or another instance, wrote the same.
      if (!isConflict(error)) throw error
    }
  }

  async list(): Promise<string[]> {
    return (await this.#db.rows(NOTICE_RANGE)).map(({ id }) => transactionOf(id))
  }

  /** The client of this transaction was told, or cannot be. */
  async remove(txId: string): Promise<void> {
    const notice = await this.#db.get<{ type?: string }>(noticeId(txId))
    if (notice?.type !== NOTICE_TYPE) return
    await this.#db.delete(notice._id, notice._rev).catch((error: unknown) => {
      // Another instance told the client as well.
      if (!isConflict(error)) throw error
    })
  }
}
