import type { BackupSummary, StartOptions } from '../../types/backups.js'
import { runBackup } from '../backup/backup-job.js'
import { cutRequester } from '../bytes/cut-text.js'
import { HostValueError, ReservedIdError } from '../errors.js'
import { summaryOf } from '../format/content.js'
import type { LeaseHolder } from '../lease/lease-document.js'
import type { EventOf } from '../observe/event-stream.js'
import { typesLeftOut } from '../own-documents.js'
import { MOST_AHEAD } from '../schedule/plan.js'
import { hostWithin } from '../waits/host-code.js'
import { type ActiveOperation, endClientIn, type Resource } from './active-operations.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import type { Leftovers } from './leftovers.js'
import type { Failure, InnerOperation, NewOperation, OperationRecords } from './lifecycle.js'

/** Bytes of the host's versions, which a header and an upload hold. */
const MAX_VERSIONS = 64 * 1024

/** A run of the schedule. */
export interface Run {
  /** Milliseconds since the epoch. */
  due: number
  /** A backup that began fewer than this many milliseconds before `due` makes the run needless. */
  unlessYoungerThan: number
}

/** A run of the schedule needs no backup: there is one. */
export class NotNeededError extends Error {
  readonly reason: EventOf<'schedule_skipped'>['reason']
  readonly id: string

  constructor(reason: NotNeededError['reason'], id: string) {
    super(`backup ${id} does for this run`)
    this.reason = reason
    this.id = id
  }
}

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

  /**
   * @param beforeRestore the transaction of the restore that it is made to take back
   * @throws HostTimeoutError, HostValueError, CouchError
   */
  async describe(options: StartOptions, beforeRestore?: string): Promise<NewOperation<BackupSummary>> {
    const requester = cutRequester(options.requester)
    const versions = await this.#versions()
    const { repository } = this.#databases
    if (repository.isSealing) await repository.requireKey()
    const { note, protect } = options
    const facts = {
      instance: this.#instance.name,
      versions,
      requester,
      note,
      protect,
      beforeRestore
    }
    return {
      kind: 'backup',
      cancel: 'now',
      idAfter: await repository.newIds(),
      prepare: async (operation) => {
        const origin = await this.#databases.ensureOrigin(endClientIn(operation, 'sources'))
        const running = repository.on(endClientIn(operation, 'repository')).runningBackup(operation.id)
        return running.begin({ ...facts, console: origin })
      },
      work: (operation) =>
        this.#backUp(operation, {
          full: options.full === true,
          isBeforeRestore: beforeRestore !== undefined
        }),
      started: (id) => ({ type: 'backup_started', id, ...(requester && { requester }) }),
      finished: (id, ended, backup) => ({ type: 'backup_finished', id, ...ended, backup }),
      failed: (id, ended, error) => ({ type: 'backup_failed', id, ...ended, error })
    }
  }

  /** Describes a backup that runs only if it is still needed when the lease is held. */
  async describeRun(run: Run): Promise<NewOperation<BackupSummary>> {
    const backup = await this.describe({})
    let newest = 0n
    return {
      ...backup,
      idAfter(carried, taken) {
        newest = carried
        return backup.idAfter(carried, taken)
      },
      check: () => this.checkNeeded(run, newest)
    }
  }

  /**
   * Looks whether a run needs a backup. @param newest number of the newest backup, as the lease tells it
   * @throws NotNeededError
   */
  async checkNeeded({ due, unlessYoungerThan }: Run, newest?: bigint): Promise<void> {
    const { repository } = this.#databases
    const owner = await this.#databases.owner()
    const possible = this.#instance.clock.now() + MOST_AHEAD
    let younger: string | undefined
    for await (const { id, beganAt, isBeforeRestore } of repository.goodSince(due - unlessYoungerThan, {
      owner,
      newest
    })) {
      // No backup holds what was restored after this one.
      if (isBeforeRestore) continue
      // A wrong clock dated this one: it may be of any time.
      if (beganAt > possible) continue
      if (beganAt >= due) throw new NotNeededError('made_elsewhere', id)
      younger ??= id
    }
    if (younger !== undefined) throw new NotNeededError('younger', younger)
  }

  /**
   * Describes the backup that a restore makes before it writes, by the number that its lease has reserved.
   * @param restore whose id is that of its transaction
   */
  async describeBefore(
    { id: txId, carried }: ActiveOperation,
    requester: StartOptions['requester']
  ): Promise<InnerOperation<BackupSummary>> {
    const id = this.#databases.repository.backupId(carried)
    const note = `made before restore ${txId}, to take it back`
    const backup = await this.describe({ note, requester }, txId)
    return {
      ...backup,
      idAfter: () => ({ id }),
      prepare: async (...given) => {
        if (await backup.prepare(...given)) return true
        throw new ReservedIdError(id, this.#databases.repository.name)
      }
    }
  }

  /** Fails the backup of a restore that has failed, if it still counts as running. */
  async failBefore(restore: ActiveOperation, reason: string): Promise<void> {
    const repository = this.#databases.repository.on(endClientIn(restore, 'repository'))
    const id = repository.backupId(restore.carried)
    const loaded = await repository.load(id)
    if (loaded?.state === 'running') await repository.runningBackup(id).fail(reason)
  }

  /** Looks after what may come late of the backup of a restore that has failed. */
  watchBefore({ carried }: ActiveOperation): void {
    this.#leftovers.watch(this.#databases.repository.backupId(carried), false)
  }

  async isOver({ id }: LeaseHolder): Promise<boolean> {
    const loaded = await this.#databases.repository.load(id)
    return loaded !== null && loaded.state !== 'running'
  }

  async recordFailure(
    operation: ActiveOperation,
    resource: Resource,
    { reason, error }: Failure
  ): Promise<void> {
    if (resource !== 'repository') return
    const { id, beganAt } = operation
    const took = error === undefined ? undefined : performance.now() - beganAt
    const repository = this.#databases.repository.on(endClientIn(operation, 'repository'))
    await repository.runningBackup(id).fail(reason, took)
  }

  onFailed({ id }: ActiveOperation): void {
    this.#leftovers.watch(id)
  }

  async #backUp(
    { id, workClient, progress }: ActiveOperation,
    { full, isBeforeRestore }: { full: boolean; isBeforeRestore: boolean }
  ): Promise<BackupSummary> {
    const { excludeTypes, onUnreadable, incremental } = this.#instance.options
    const backup = await runBackup({
      id,
      owner: await this.#databases.owner(),
      sources: this.#databases.sourcesOn(workClient),
      repository: this.#databases.repository.on(workClient),
      excludeTypes: typesLeftOut(excludeTypes, isBeforeRestore),
      onUnreadable,
      full,
      mayLack: isBeforeRestore,
      incremental,
      progress,
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
