import type { BackupEvent } from '../../types/index.js'

/** Remembers which restore runs on this server, by the plugin's events, so that a page opened later can follow it. */
export class RunningRestore {
  #txId: string | null = null

  get txId(): string | null {
    return this.#txId
  }

  note(event: BackupEvent): void {
    if (event.type === 'restore_started') this.#txId = event.tx_id
    if (event.type === 'restore_finished' || event.type === 'restore_failed') this.#txId = null
  }
}
