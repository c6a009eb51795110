import type { BackupEvent } from '../../types/index.js'

/** Which restore runs on this server, as the plugin's events tell: a page that is opened meanwhile can follow it. */
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
