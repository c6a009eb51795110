import type { RekeyOutcome } from '../../types/backups.js'
import type { ReplicasWatch } from '../couch/replicas.js'
import type { EventStream } from '../observe/event-stream.js'
import type { Databases } from './databases.js'
import { type NewOperation, newOperationId } from './lifecycle.js'

/** Describes operations that seal all backups anew. They leave no record: headers tell what is left to do. */
export class Rekeys {
  readonly #events: EventStream
  readonly #databases: Databases

  constructor(events: EventStream, databases: Databases) {
    this.#events = events
    this.#databases = databases
  }

  /** @throws InvalidParameterError without the option, KeyUnavailableError */
  async describe(): Promise<NewOperation<RekeyOutcome, { replicas: ReplicasWatch | undefined }>> {
    const { repository } = this.#databases
    const key = await repository.requireKey()
    const id = newOperationId('rekey')
    return {
      kind: 'rekey',
      idAfter: () => ({ id }),
      // A backup that a lagging replica does not show would be left out, and its chunks deleted.
      prepare: async ({ workClient }) => ({ replicas: await repository.on(workClient).settle() }),
      work: async ({ workClient }, { replicas }) => {
        let since = performance.now()
        const rekeyed = await repository.on(workClient).rekey({
          owner: await this.#databases.owner(),
          replicas,
          onBackup: ({ id: backup, chunks, bytes }) => {
            const durationMs = performance.now() - since
            since = performance.now()
            this.#events.emit({ type: 'rekey_backup_finished', id, backup, durationMs, chunks, bytes })
          }
        })
        const { deleted, ...outcome } = rekeyed
        return { key, ...outcome, parts: deleted.parts, freed_bytes: deleted.bytes }
      },
      started: () => ({ type: 'rekey_started', id, key }),
      finished: (_id, ended, outcome) => ({ type: 'rekey_finished', id, ...ended, outcome }),
      failed: (_id, ended, error) => ({ type: 'rekey_failed', id, ...ended, error })
    }
  }
}
