import type { Databases } from './databases.js'

/** How often to look after a backup that has failed: once every `timeouts.lease`. */
const LOOKS = 10
/** Backups to look after when the server starts. */
const NEWEST = 30

interface Watched {
  looksLeft: number
  /** Known to have failed: parts without a header are then its own, since its header may come late. */
  failed: boolean
}

/** Looks after failed backups: slow requests may store parts or the header after these were deleted. */
export class Leftovers {
  readonly #databases: Databases
  readonly #watched = new Map<string, Watched>()

  constructor(databases: Databases) {
    this.#databases = databases
  }

  /** @param failed whether the backup is known to have failed, rather than only possible */
  watch(id: string, failed = true): void {
    this.#watched.set(id, { looksLeft: LOOKS, failed })
  }

  /** Looks after the newest backups: something may have been stored late while no instance ran. */
  async watchNewest(): Promise<void> {
    const ids = await this.#databases.repository.list()
    for (const id of ids.slice(-NEWEST)) {
      if (!this.#watched.has(id)) this.#watched.set(id, { looksLeft: LOOKS, failed: false })
    }
  }

  /** Yields backups of which something was stored late. They have to be marked as failed once more. */
  async *late(): AsyncGenerator<{ id: string; isLate: () => Promise<boolean> }> {
    for (const [id, watched] of this.#watched) {
      // Count down first, so that an unreadable backup cannot block the rest for ever.
      if (--watched.looksLeft <= 0) this.#watched.delete(id)
      const state = await this.#look(id, watched)
      if (state === 'settled') this.#watched.delete(id)
      else if (state === 'late') yield { id, isLate: async () => (await this.#look(id, watched)) === 'late' }
    }
  }

  /** @returns `settled` when nothing can come any more, `quiet` when nothing has come */
  async #look(id: string, { failed }: Watched): Promise<'settled' | 'quiet' | 'late'> {
    const { repository } = this.#databases
    const loaded = await repository.load(id)
    // Judge parts without a header only where the header was: a replication brings parts first.
    if (!loaded) return failed && (await repository.hasUnlistedParts(id)) ? 'late' : 'quiet'
    const { state, isLegacy } = loaded
    if (isLegacy || !loaded.isOf(await this.#databases.owner())) return 'settled'
    if (state === 'running') return 'late'
    if (state !== 'failed') return 'settled'
    return (await repository.hasUnlistedParts(id)) ? 'late' : 'quiet'
  }
}
