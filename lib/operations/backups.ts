import type { BackupSummary, StartedBackup } from '../../types/backups.js'
import { markFailed, newHeader, runBackup } from '../backup/backup-job.js'
import { summaryOf } from '../backup/content.js'
import { HostValueError } from '../errors.js'
import { backupId } from '../store/names.js'
import { hostWithin } from '../within.js'
import { endReason } from './end-reason.js'
import type { Environment } from './environment.js'
import type { Leftovers } from './leftovers.js'
import type { Running, RunningOperations } from './running-operations.js'

/** Bytes of what the host tells of its versions: a header holds it, and an upload of the backup. */
const MAX_VERSIONS = 64 * 1024

/** Starts backups and sees them through. */
export class Backups {
  readonly #environment: Environment
  readonly #running: RunningOperations
  readonly #leftovers: Leftovers

  constructor(environment: Environment, running: RunningOperations, leftovers: Leftovers) {
    this.#environment = environment
    this.#running = running
    this.#leftovers = leftovers
  }

  async start(): Promise<StartedBackup> {
    const { instance, jobs } = this.#environment
    const versions = await this.#versions()
    for (let timestamp = Date.now(); ; timestamp++) {
      const id = backupId(timestamp)
      const running = await this.#running.begin('backup', id)
      try {
        const store = this.#environment.storeOn(running.end)
        if (await store.create(id, newHeader(timestamp, instance, versions))) {
          return { id, finished: jobs.add(this.#run(id, running)) }
        }
      } catch (error) {
        // The header may have been written all the same.
        await this.#fail(id, running, error)
        throw error
      }
      await this.#running.end(running)
    }
  }

  async #run(id: string, running: Running): Promise<BackupSummary> {
    const environment = this.#environment
    const startedAt = performance.now()
    const ended = () => ({ durationMs: performance.now() - startedAt, retries: running.retries })
    const { events } = environment
    events.emit({ type: 'backup_started', id })
    try {
      await runBackup({
        id,
        sources: environment.databasesOn(running.work),
        store: environment.storeOn(running.work),
        excludeTypes: environment.excludeTypes,
        onUnreadable: environment.options.onUnreadable,
        onPhase: (phase) => events.emit({ id, ...phase })
      })
      const backup = summaryOf(await environment.load(id))
      await this.#running.end(running)
      events.emit({ type: 'backup_finished', id, ...ended(), backup })
      return backup
    } catch (error) {
      await this.#fail(id, running, error)
      events.emit({ type: 'backup_failed', id, ...ended(), error: error as Error })
      throw error
    }
  }

  async #fail(id: string, running: Running, error: unknown): Promise<void> {
    const store = this.#environment.storeOn(running.end)
    await this.#running.endFailed(running, error, () => markFailed(store, id, endReason(error)))
    this.#leftovers.watch(id)
  }

  async #versions(): Promise<Record<string, unknown>> {
    const { versions, timeouts } = this.#environment.options
    const given =
      typeof versions === 'function' ? await hostWithin(timeouts.versions, 'versions', versions) : versions
    const bytes = Buffer.byteLength(JSON.stringify(given ?? {}))
    if (bytes > MAX_VERSIONS) throw new HostValueError('versions', `${bytes} bytes, at most ${MAX_VERSIONS}`)
    return given ?? {}
  }
}
