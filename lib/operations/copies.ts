import type { CopyOptions, CopyOutcome } from '../../types/backups.js'
import type { OperationKind } from '../../types/events.js'
import { CouchDatabase } from '../couch/database.js'
import {
  CopyConflictError,
  InvalidParameterError,
  MissingDatabaseError,
  TooManyRequestsError
} from '../errors.js'
import { leasesOn } from '../lease/leases.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import { type NewOperation, newOperationId } from './lifecycle.js'

/**
 * Describes copies of backups to other repositories. A copy only reads the repository of its console, so it needs no
 * lease there: it holds the one of the database that it writes to, as the operations of that database's consoles do.
 * What it leaves there has no header; the next pruning deletes it.
 */
export class Copies {
  readonly #instance: Instance
  readonly #databases: Databases

  constructor(instance: Instance, databases: Databases) {
    this.#instance = instance
    this.#databases = databases
  }

  /** @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, BackupNotCopyableError, DamagedBackupError */
  check(id: string): Promise<void> {
    return this.#databases.repository.checkCopyable(id)
  }

  /** Runs a copy in the only place. @throws TooManyRequestsError */
  inPlace<T>(run: () => Promise<T>): Promise<T> {
    return this.#instance.copies.run(
      () => new TooManyRequestsError('a backup is being copied by this instance'),
      run
    )
  }

  describe(backup: string, { to: { couch, database }, signal }: CopyOptions): NewOperation<CopyOutcome> {
    const id = newOperationId('copy')
    const about = { id, backup_id: backup, database }
    const client = this.#instance.clientTo(couch, { option: 'options/to/couch', server: 'destination' })
    const target = new CouchDatabase(client, database)
    const destination = this.#databases.repository.elsewhere(target)
    return {
      kind: 'copy',
      cancel: 'now',
      about: { backup_id: backup },
      resources: [],
      signal,
      idAfter: () => ({ id }),
      prepare: async ({ abort }, holdElsewhere) => {
        await this.#checkTarget(target.on(client.with({ signal: abort.signal })))
        const { leases } = leasesOn(client, (by) => destination.lease(by), this.#instance.options.timeouts)
        await holdElsewhere(leases, ({ operation }) => mustBeEnded(operation, backup, database))
        return true
      },
      work: async ({ workClient }) => {
        const repository = this.#databases.repository.on(workClient)
        const copied = await repository.copy(backup, destination.on(workClient), this.#databases.system.name)
        return { id: backup, ...copied }
      },
      started: () => ({ type: 'copy_started', ...about }),
      finished: (_id, ended, outcome) => ({ type: 'copy_finished', ...about, ...ended, outcome }),
      failed: (_id, ended, error) => ({ type: 'copy_failed', ...about, ...ended, error }),
      dispose: () => client.close()
    }
  }

  /** @throws InvalidParameterError, MissingDatabaseError */
  async #checkTarget(target: CouchDatabase): Promise<void> {
    if (this.#databases.repository.isIn(target))
      throw new InvalidParameterError('options/to: names the database that the backups are in')
    const sources = Object.values(this.#databases.sourcesOn(this.#instance.client))
    if (sources.some((source) => source.isSame(target)))
      throw new InvalidParameterError(`options/to: names a database that is backed up, "${target.name}"`)
    if (await target.find()) return
    throw new MissingDatabaseError(
      `database "${target.name}" does not exist where the backup is to be copied to: check options/to, or create it`
    )
  }
}

const mustBeEnded = (operation: OperationKind, backup: string, database: string) =>
  new CopyConflictError(
    backup,
    database,
    `a ${operation} was interrupted there: start a console that keeps its backups there, which ends it`
  )
