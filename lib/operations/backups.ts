import type { BackupSummary, Requester, StartedBackup, StartOptions } from '../../types/backups.js'
import { markFailed, newHeader, runBackup } from '../backup/backup-job.js'
import { cutRequester } from '../bytes/cut-text.js'
import { HostValueError, ReservedIdError } from '../errors.js'
import { summaryOf } from '../format/content.js'
import { newBackupId } from '../repository/ids.js'
import { hostWithin } from '../waits/host-code.js'
import { endReason } from './end-reason.js'
import type { Environment } from './environment.js'
import type { Leftovers } from './leftovers.js'
import type { NewOperation, Running, RunningOperations } from './running-operations.js'

/** Bytes of what the host tells of its versions: a header holds it, and an upload of the backup. */
const MAX_VERSIONS = 64 * 1024

/** Ids that are tried, where documents of the console have them; each is twice as far off as the one before. */
const ATTEMPTS = 8

/** What the header of a new backup tells besides where it stands. */
interface AboutBackup {
  versions: Record<string, unknown>
  requester?: Requester
}

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

  async start(options: StartOptions = {}): Promise<StartedBackup> {
    await this.#running.refuseIfRunning('backup')
    const about = { versions: await this.#versions(), requester: cutRequester(options.requester) }
    const { store } = this.#environment
    let last = (await store.list()).at(-1)
    for (let taken = 0; taken < ATTEMPTS; taken++) {
      const started = await this.#begin(about, (newest) => newBackupId(newest, last, taken))
      if (typeof started !== 'string') return started
      last = started
    }
    throw new ReservedIdError(last, store.name)
  }

  /** @returns the id when another document has it */
  async #begin(about: AboutBackup, idAfter: NewOperation['idAfter']): Promise<StartedBackup | string> {
    const { instance, jobs, system } = this.#environment
    const running = await this.#running.begin('backup', { idAfter })
    const { id } = running
    try {
      const store = this.#environment.storeOn(running.end)
      const header = newHeader({ start: Date.now(), instance, system: system.name, ...about })
      if (await store.create(id, header)) {
        return { id, finished: jobs.add(this.#run(id, running, about.requester)) }
      }
    } catch (error) {
      // The header may have been written all the same.
      await this.#fail(id, running, error)
      throw error
    }
    await this.#running.end(running)
    return id
  }

  async #run(id: string, running: Running, requester?: Requester): Promise<BackupSummary> {
    const environment = this.#environment
    const startedAt = performance.now()
    const ended = () => ({ durationMs: performance.now() - startedAt, retries: running.retries })
    const { events } = environment
    events.emit({ type: 'backup_started', id, ...(requester && { requester }) })
    try {
      await runBackup({
        id,
        sources: environment.databasesOn(running.work),
        repository: environment.storeOn(running.work),
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
    const took = performance.now() - running.beganAt
    await this.#running.endFailed(running, error, () => markFailed(store, id, endReason(error), took))
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
