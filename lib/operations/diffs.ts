import { addAbortSignal } from 'node:stream'
import type { LogicalDatabase } from '../../types/databases.js'
import type { DiffOptions, DiffStream, DocumentDiff } from '../../types/diff.js'
import type { CouchClient } from '../couch/client.js'
import { LOGICAL_DATABASES } from '../databases.js'
import { ComparedBackup } from '../diff/compared-backup.js'
import { diffBackups } from '../diff/diff-backups.js'
import { diffNow } from '../diff/diff-now.js'
import { BackupNotComparableError, ClosingError, StalledDiffError, TooManyRequestsError } from '../errors.js'
import { INTERNAL_TYPES, isOwnDocument, typesLeftAlone } from '../own-documents.js'
import { type LoadedBackup, whyEmpty } from '../repository/loaded-backup.js'
import type { Repository } from '../repository/repository.js'
import { StoredSource } from '../restore/stored-source.js'
import { onAbort } from '../waits/linked-abort.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'
import { LazyStream } from './lazy-stream.js'

/** Documents that are compared before they are read: each takes some 30 KiB at most. */
const AHEAD = 16

/** Compares backups with each other and with the databases. Needs no lease, and writes nothing. */
export class Diffs {
  readonly #instance: Instance
  readonly #databases: Databases

  constructor(instance: Instance, databases: Databases) {
    this.#instance = instance
    this.#databases = databases
  }

  /** Returns a stream that reads nothing before it is read. */
  read(id: string, options: DiffOptions): DiffStream {
    const { client, options: settings } = this.#instance
    const open = (signal: AbortSignal) => {
      const own = client.with({ retry: settings.retry, signal }).for('downloads')
      const close = () => stream.destroy(new ClosingError())
      return this.#inPlace(() => this.#diff(id, options, own), close)
    }
    const stream: LazyStream<DocumentDiff> = new LazyStream(open, {
      idle: settings.timeouts.idle,
      stalled: (ms) => new StalledDiffError(ms),
      objectMode: true,
      highWaterMark: AHEAD
    })
    if (options.signal) addAbortSignal(options.signal, stream)
    return stream
  }

  /** Reads with the only place, since a diff may take as much memory as a restore. @throws TooManyRequestsError */
  async *#inPlace<T>(read: () => AsyncIterable<T>, close: () => void): AsyncGenerator<T> {
    const full = () => new TooManyRequestsError('another diff is being read: try again later')
    let leave = () => {}
    const left = new Promise<void>((resolve) => {
      leave = resolve
    })
    await new Promise<void>((enter, refuse) => {
      const stay = async () => {
        enter()
        await left
      }
      this.#instance.diffs.run(full, stay).catch(refuse)
    })
    const stopListening = onAbort(this.#instance.deadline, close)
    try {
      yield* read()
    } finally {
      stopListening()
      leave()
    }
  }

  async *#diff(id: string, options: DiffOptions, client: CouchClient): AsyncGenerator<DocumentDiff> {
    const { against, databases, values = false } = options
    const wanted = LOGICAL_DATABASES.filter((database) => databases?.includes(database) ?? true)
    const repository = this.#databases.repository.on(client)
    const backup = await this.#load(id, repository)
    if (against === 'now')
      return yield* repository.reading([backup], this.#diffNow(backup, wanted, values, client))
    const other = await this.#load(against, repository)
    yield* repository.reading([backup, other], this.#diffBackups(backup, other, wanted, values))
  }

  /**
   * @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, BackupNotComparableError, KeyUnavailableError,
   * WrongKeyError, NotSealedBackupError
   */
  async #load(id: string, repository: Repository): Promise<LoadedBackup> {
    const loaded = await repository.get(id)
    const why = whyEmpty(loaded.state)
    if (why !== undefined) throw new BackupNotComparableError(id, why)
    return loaded
  }

  async *#diffBackups(
    one: LoadedBackup,
    other: LoadedBackup,
    databases: readonly LogicalDatabase[],
    values: boolean
  ): AsyncGenerator<DocumentDiff> {
    const { newSpool, form } = this.#databases
    const opened: ComparedBackup[] = []
    try {
      for (const loaded of [one, other])
        opened.push(await ComparedBackup.open(loaded, databases, newSpool, form))
      const [before, after] = opened
      yield* diffBackups(before, after, { databases, values })
    } finally {
      for (const backup of opened) await backup.close()
    }
  }

  async *#diffNow(
    backup: LoadedBackup,
    databases: readonly LogicalDatabase[],
    values: boolean,
    client: CouchClient
  ): AsyncGenerator<DocumentDiff> {
    const { excludeTypes } = this.#instance.options
    const source = await this.#databases.open(backup, databases, StoredSource.openUnchecked)
    try {
      yield* diffNow({
        backup: backup.id,
        source,
        databases,
        targets: this.#databases.sourcesOn(client),
        isOwn: (target, id, type) => this.#databases.holdsOwn(target) && isOwnDocument(id, type),
        internalTypes: INTERNAL_TYPES,
        keepTypes: typesLeftAlone(excludeTypes, backup.isBeforeRestore),
        values
      })
    } finally {
      await source.close()
    }
  }
}
