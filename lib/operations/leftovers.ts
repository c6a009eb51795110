import { markFailed } from '../backup/backup-job.js'
import { ClosingError, OperationInProgressError } from '../errors.js'
import { isOfOthers } from '../repository/layout.js'
import type { Environment } from './environment.js'
import type { Running, RunningOperations } from './running-operations.js'

/** How often to look after a backup that has failed: once every `timeouts.lease`. */
const LOOKS = 10
/** Backups to look after when the server starts. */
const NEWEST = 30

interface Watched {
  looksLeft: number
  /** It is known to have failed: its header may come late as well, and its parts are nobody's when that was deleted. */
  header: boolean
}

/**
 * Looks after backups that have failed. The database may carry out a request of theirs, to store a chunk or even the
 * header, after the backup was marked and its parts were deleted: a request that it was slow to answer, or one of an
 * instance that was stopped.
 */
export class Leftovers {
  readonly #environment: Environment
  readonly #running: RunningOperations
  readonly #watched = new Map<string, Watched>()

  constructor(environment: Environment, running: RunningOperations) {
    this.#environment = environment
    this.#running = running
  }

  /** A backup has failed, or was marked for an instance that died. */
  watch(id: string): void {
    this.#watched.set(id, { looksLeft: LOOKS, header: true })
  }

  /** What came while no instance ran. */
  async watchNewest(): Promise<void> {
    const ids = await this.#environment.store.list()
    for (const id of ids.slice(-NEWEST)) {
      if (!this.#watched.has(id)) this.#watched.set(id, { looksLeft: LOOKS, header: false })
    }
  }

  /** Marks and deletes what came late. */
  async sweep(): Promise<void> {
    for (const [id, watched] of this.#watched) {
      // Before it is looked at: one that cannot be read does not keep others from being looked at for ever.
      if (--watched.looksLeft <= 0) this.#watched.delete(id)
      if (await this.#sweep(id, watched)) this.#watched.delete(id)
    }
  }

  /** @returns whether nothing can come any more */
  async #sweep(id: string, { header }: Watched): Promise<boolean> {
    const { store } = this.#environment
    const loaded = await store.load(id)
    // Chunks without a header are ours to judge only where the header was: a database that is being copied has them
    // before it.
    if (!loaded && !header) return false
    if (loaded?.kind === 'chunks' && isOfOthers(loaded.header, this.#environment.system.name)) return true
    const { in_progress: running, error } = loaded?.header ?? { in_progress: false, error: 'deleted' }
    if (loaded?.kind === 'legacy' || (!running && error === undefined)) return true
    if (running || (await store.hasParts(id))) await this.#cleanUp(id)
    return false
  }

  /** Under the lease: a backup that runs is not touched, and `markFailed` leaves one that is complete. */
  async #cleanUp(id: string): Promise<void> {
    if (this.#running.closing) return
    let running: Running
    try {
      running = await this.#running.begin('backup', { idAfter: () => ({ id }) })
    } catch (error) {
      if (error instanceof OperationInProgressError || error instanceof ClosingError) return
      throw error
    }
    const store = this.#environment.storeOn(running.end)
    await this.#running.endLeft(running, () =>
      markFailed(store, id, 'interrupted: it was not seen to its end')
    )
  }
}
