import { beganAt } from '../repository/ids.js'
import type { Repository } from '../repository/repository.js'

/** Finds out when the newest complete backup ended, reading a header only once it is not in progress any more. */
export class NewestBackup {
  readonly #store: Repository
  /** The newest backup that is complete or has failed. */
  #settled: string | undefined
  #endedAt: number | undefined

  constructor(store: Repository) {
    this.#store = store
  }

  /** @returns milliseconds since the epoch; `undefined` when there is none */
  async endedAt(): Promise<number | undefined> {
    let settled: string | undefined
    for (const id of (await this.#store.list()).reverse()) {
      if (id === this.#settled) break
      const loaded = await this.#store.load(id)
      if (!loaded || loaded.header.in_progress) continue
      settled ??= id
      if (loaded.header.error) continue
      const { end_timestamp: end } = loaded.header
      // Headers of older backups may say anything.
      this.#endedAt = typeof end === 'number' && end <= Date.now() ? end : beganAt(id)
      break
    }
    this.#settled = settled ?? this.#settled
    return this.#endedAt
  }
}
