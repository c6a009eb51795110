import type { BackupSummary, StartOptions } from '../../types/backups.js'
import { runBackup } from '../backup/backup-job.js'
import { cutRequester } from '../bytes/cut-text.js'
import { CouchError } from '../couch/errors.js'
import { HostValueError } from '../errors.js'
import { summaryOf } from '../format/content.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { hostWithin } from '../waits/host-code.js'
import type { ActiveOperation } from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { Leftovers } from './leftovers.js'
import type { Failure, NewOperation, OperationRecords } from './lifecycle.js'

/** Bytes of the host's versions, which a header and an upload hold. */
const MAX_VERSIONS = 64 * 1024

/** Describes backups that are to run. Their records are their headers. */
export class Backups implements OperationRecords {
  readonly #instance: Instance
  readonly #databases: Databases
  readonly #leftovers: Leftovers

  constructor(instance: Instance, databases: Databases, leftovers: Leftovers) {
    this.#instance = instance
    this.#databases = databases
    this.#leftovers = leftovers
  }

  /** @throws HostTimeoutError, HostValueError, CouchError */
  async describe(options: StartOptions): Promise<NewOperation<BackupSummary>> {
    const requester = cutRequester(options.requester)
    const versions = await this.#versions()
    const { repository, system } = this.#databases
    const { note, protect } = options
    const origin = { instance: this.#instance.name, system: system.name, versions, requester, note, protect }
    return {
      kind: 'backup',
      idAfter: await repository.newIds(),
      createRecord: ({ id, endClient }) => repository.on(endClient).running(id).begin(origin),
      work: (operation) => this.#backUp(operation),
      started: (id) => ({ type: 'backup_started', id, ...(requester && { requester }) }),
      finished: (id, ended, backup) => ({ type: 'backup_finished', id, ...ended, backup }),
      failed: (id, ended, error) => ({ type: 'backup_failed', id, ...ended, error: error as Error })
    }
  }

  async ensureDatabases(): Promise<void> {
    const { repository, system } = this.#databases
    await this.#databases.requireSystem()
    if (!repository.isIn(system)) await repository.ensure()
  }

  async isOver({ id, backups }: LeaseHolder): Promise<boolean> {
    try {
      const loaded = await this.#databases.repository.on(this.#instance.client, backups).load(id)
      return loaded !== null && !loaded.header.in_progress
    } catch (error) {
      if (isForbidden(error)) return false
      throw error
    }
  }

  async recordFailure(operation: ActiveOperation, { reason, error }: Failure): Promise<void> {
    const { id, backups, endClient, beganAt } = operation
    const took = error === undefined ? undefined : performance.now() - beganAt
    try {
      await this.#databases.repository.on(endClient, backups).running(id).fail(reason, took)
    } catch (cause) {
      // The registration that owns the backup marks it when it starts.
      if (this.#isOwn(operation) || !isForbidden(cause)) throw cause
    }
  }

  onFailed(operation: ActiveOperation): void {
    if (this.#isOwn(operation)) this.#leftovers.watch(operation.id)
  }

  #isOwn({ backups }: ActiveOperation): boolean {
    return backups === this.#databases.names.backups
  }

  async #backUp({ id, workClient }: ActiveOperation): Promise<BackupSummary> {
    const backup = await runBackup({
      id,
      sources: this.#databases.sourcesOn(workClient),
      repository: this.#databases.repository.on(workClient),
      excludeTypes: this.#instance.excludeTypes,
      onUnreadable: this.#instance.options.onUnreadable,
      onPhase: (phase) => this.#instance.events.emit({ id, ...phase })
    })
    return summaryOf(backup)
  }

  async #versions(): Promise<Record<string, unknown>> {
    const { versions, timeouts } = this.#instance.options
    const given =
      typeof versions === 'function' ? await hostWithin(timeouts.versions, 'versions', versions) : versions
    const bytes = Buffer.byteLength(JSON.stringify(given ?? {}))
    if (bytes > MAX_VERSIONS) throw new HostValueError('versions', `${bytes} bytes, at most ${MAX_VERSIONS}`)
    return given ?? {}
  }
}

/** Another registration's backups may be in a database that this one must not read or write. */
const isForbidden = (error: unknown): boolean => error instanceof CouchError && !error.retryable
