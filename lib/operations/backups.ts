import type { BackupSummary, StartOptions } from '../../types/backups.js'
import { markFailed, newHeader, runBackup } from '../backup/backup-job.js'
import { cutRequester } from '../bytes/cut-text.js'
import { CouchError } from '../couch/errors.js'
import { HostValueError, ReservedIdError } from '../errors.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import { newBackupId } from '../repository/ids.js'
import { hostWithin } from '../waits/host-code.js'
import type { ActiveOperation } from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { Leftovers } from './leftovers.js'
import type { Failure, NewOperation, OperationRecords } from './lifecycle.js'
import type { StoredBackups } from './stored-backups.js'

/** Bytes of the host's versions, which a header and an upload hold. */
const MAX_VERSIONS = 64 * 1024

/** Ids that are tried where documents of the console have them, each twice as far ahead as the one before. */
const ATTEMPTS = 8

/** Describes backups that are to run. Their records are their headers. */
export class Backups implements OperationRecords {
  readonly #instance: Instance
  readonly #databases: Databases
  readonly #stored: StoredBackups
  readonly #leftovers: Leftovers

  constructor(instance: Instance, databases: Databases, stored: StoredBackups, leftovers: Leftovers) {
    this.#instance = instance
    this.#databases = databases
    this.#stored = stored
    this.#leftovers = leftovers
  }

  /** @throws HostTimeoutError, HostValueError, CouchError */
  async describe(options: StartOptions): Promise<NewOperation<BackupSummary>> {
    const requester = cutRequester(options.requester)
    const versions = await this.#versions()
    const { repository, system } = this.#databases
    const newestListed = (await repository.list()).at(-1)
    const { name: instance } = this.#instance
    return {
      kind: 'backup',
      idAfter(carried, taken) {
        const last = taken.at(-1)
        if (last !== undefined && taken.length >= ATTEMPTS) throw new ReservedIdError(last, repository.name)
        const { id, newest } = newBackupId(carried, last ?? newestListed, taken.length)
        return { id, carried: newest }
      },
      createRecord: ({ id, endClient }) => {
        const header = newHeader({ instance, system: system.name, versions, requester })
        return this.#databases.repositoryOn(endClient).create(id, header)
      },
      work: (operation) => this.#backUp(operation),
      started: (id) => ({ type: 'backup_started', id, ...(requester && { requester }) }),
      finished: (id, ended, backup) => ({ type: 'backup_finished', id, ...ended, backup }),
      failed: (id, ended, error) => ({ type: 'backup_failed', id, ...ended, error: error as Error })
    }
  }

  async ensureDatabases(): Promise<void> {
    const { repository, system } = this.#databases
    await this.#databases.requireSystem()
    if (repository.name !== system.name) await repository.ensure()
  }

  async isOver({ id, backups }: LeaseHolder): Promise<boolean> {
    try {
      const loaded = await this.#databases.repositoryOn(this.#instance.client, backups).load(id)
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
      await markFailed(this.#databases.repositoryOn(endClient, backups), id, reason, took)
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
    await runBackup({
      id,
      sources: this.#databases.sourcesOn(workClient),
      repository: this.#databases.repositoryOn(workClient),
      excludeTypes: this.#instance.excludeTypes,
      onUnreadable: this.#instance.options.onUnreadable,
      onPhase: (phase) => this.#instance.events.emit({ id, ...phase })
    })
    return this.#stored.summary(id)
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
