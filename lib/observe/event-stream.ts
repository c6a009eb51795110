import type { BackupEvent } from '../../types/events.js'

export type Listener = (event: BackupEvent) => unknown

export type EventOf<Type extends BackupEvent['type']> = Extract<BackupEvent, { type: Type }>

/** Tells listeners what happens. Operations neither wait for listeners nor fail with them. */
export class EventStream {
  readonly #listeners: readonly Listener[]
  readonly #onFailure: (error: unknown, event: BackupEvent) => void

  constructor(listeners: readonly Listener[], onFailure: (error: unknown, event: BackupEvent) => void) {
    this.#listeners = listeners
    this.#onFailure = onFailure
  }

  emit(event: BackupEvent): void {
    for (const listener of this.#listeners) {
      void (async () => listener(event))().catch((error: unknown) => this.#onFailure(error, event))
    }
  }
}
