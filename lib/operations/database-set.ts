import type { Readable } from 'node:stream'
import type {
  BackupSummary,
  CopyOptions,
  CopyOutcome,
  PruneOutcome,
  RekeyOutcome,
  RestoreOptions,
  StartedBackup,
  StartedRestore,
  StartOptions
} from '../../types/backups.js'
import type { DatabaseNames } from '../../types/databases.js'
import type { OperationKind } from '../../types/events.js'
import type { VerifyOptions, VerifyReport } from '../../types/verify.js'
import { ActiveOperations } from './active-operations.js'
import { Backups, type Run } from './backups.js'
import { Copies } from './copies.js'
import { Databases } from './databases.js'
import { Diffs } from './diffs.js'
import { Housekeeping } from './housekeeping.js'
import type { Instance } from './instance.js'
import { Leftovers } from './leftovers.js'
import { Lifecycle, type NewOperation, NO_RECORDS } from './lifecycle.js'
import { Outbox } from './outbox.js'
import { type PruneRequest, Prunes } from './prunes.js'
import { Rekeys } from './rekeys.js'
import { Restores } from './restores.js'
import { StoredBackups } from './stored-backups.js'
import { interrupted, Verifies, type VerifyDue, type VerifyRequest } from './verifies.js'

/** The databases by one set of names, and what runs on them: operations end where they began. */
export class DatabaseSet {
  readonly stored: StoredBackups
  readonly diffs: Diffs
  /** Cleans up after instances that died, once it is started. */
  readonly housekeeping: Housekeeping
  readonly #active: ActiveOperations
  readonly #outbox: Outbox
  readonly #backups: Backups
  readonly #restores: Restores
  readonly #prunes: Prunes
  readonly #rekeys: Rekeys
  readonly #verifies: Verifies
  readonly #copies: Copies
  readonly #lifecycle: Lifecycle

  /** Makes the parts, each of which knows only earlier ones. */
  constructor(instance: Instance, names: Required<DatabaseNames>) {
    const databases = new Databases(names, instance)
    const leftovers = new Leftovers(databases)
    this.stored = new StoredBackups(instance, databases)
    this.diffs = new Diffs(instance, databases)
    this.#outbox = new Outbox(instance, databases.system, instance.transactions)
    this.#active = new ActiveOperations(instance, databases, (txIds) => this.#outbox.add(txIds))
    this.#backups = new Backups(instance, databases, leftovers)
    this.#restores = new Restores(instance, databases, this.#outbox, this.#backups)
    this.#prunes = new Prunes(databases)
    this.#rekeys = new Rekeys(instance.events, databases)
    this.#verifies = new Verifies(instance, databases)
    this.#copies = new Copies(instance, databases)
    this.#lifecycle = new Lifecycle(instance, this.#active, databases, {
      backup: this.#backups,
      restore: this.#restores,
      prune: this.#prunes,
      rekey: NO_RECORDS,
      verify: this.#verifies,
      copy: NO_RECORDS
    })
    const watched = { outbox: this.#outbox, leftovers, prunes: this.#prunes }
    this.housekeeping = new Housekeeping(instance, this.#lifecycle, watched, databases)
  }

  get busy(): boolean {
    return this.#active.any
  }

  /** @throws OperationInProgressError while an operation of this instance holds a lease of the set and is not over */
  async refuseIfBusy(asked: OperationKind): Promise<void> {
    if (this.busy) await this.#lifecycle.refuseIfInProgress(asked)
  }

  start(options: StartOptions): Promise<StartedBackup> {
    return this.#start(() => this.#backups.describe(options))
  }

  /** Starts the backup of a run, if it is needed. @throws NotNeededError, and what `start` does */
  async startRun(run: Run): Promise<StartedBackup> {
    await this.#backups.checkNeeded(run)
    return this.#start(() => this.#backups.describeRun(run))
  }

  /** Refuses before it describes, since a description asks the host. */
  async #start(describe: () => Promise<NewOperation<BackupSummary>>): Promise<StartedBackup> {
    await this.#lifecycle.refuseIfInProgress('backup')
    return this.#lifecycle.run(await describe())
  }

  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions,
    urlOf: (path: string) => string
  ): Promise<StartedRestore> {
    await this.#lifecycle.refuseIfInProgress('restore', this.#restores.resourcesOf(source, options))
    const { id, finished } = await this.#lifecycle.run(await this.#restores.describe(source, options, urlOf))
    return { tx_id: id, finished }
  }

  /** Begins to remove backups, and returns the end of that. */
  prune(request: PruneRequest): Promise<{ finished: Promise<PruneOutcome> }> {
    return this.#lifecycle.run(this.#prunes.describe(request))
  }

  /** Begins to seal all backups anew, and returns the end of that. */
  async rekey(): Promise<{ finished: Promise<RekeyOutcome> }> {
    await this.#lifecycle.refuseIfInProgress('rekey')
    return this.#lifecycle.run(await this.#rekeys.describe())
  }

  previewPrune(request: PruneRequest): Promise<PruneOutcome> {
    return this.#prunes.preview(request)
  }

  prepareVerify(id: string, options: VerifyOptions): Promise<VerifyRequest> {
    return this.#verifies.prepare(id, options)
  }

  /** Verifies the newest backup for a run of the schedule, if that is needed. */
  async verifyRun(run: VerifyDue): Promise<VerifyReport> {
    return this.verify(await this.#verifies.prepareRun(run))
  }

  verify(request: VerifyRequest): Promise<VerifyReport> {
    return this.#verifies.inPlace(request, async () => {
      const { finished } = await this.#lifecycle.run(this.#verifies.describe(request)).catch((error) => {
        throw request.signal?.aborted ? interrupted(request, error) : error
      })
      return finished.catch((error) => {
        throw interrupted(request, error)
      })
    })
  }

  checkCopyable(id: string): Promise<void> {
    return this.#copies.check(id)
  }

  /** Copies a backup under the lease of the database that it is copied to. */
  copy(id: string, options: CopyOptions): Promise<CopyOutcome> {
    return this.#copies.inPlace(async () => {
      const { finished } = await this.#lifecycle.run(this.#copies.describe(id, options))
      return finished
    })
  }

  refuse(): void {
    this.#active.closing = true
    this.housekeeping.stop()
  }

  /** Stops the operations, whose ends are still recorded, and the deliveries. */
  stop(): void {
    this.#active.stop()
    this.#outbox.stop()
  }

  async abandon(): Promise<void> {
    this.#active.abandonAll()
    await this.#outbox.close()
  }
}
