import { addAbortSignal, Readable } from 'node:stream'
import type { LogicalDatabase } from '../../types/databases.js'
import type { DiffOptions, DiffStream, DocumentDiff } from '../../types/diff.js'
import type { CouchClient } from '../couch/client.js'
import { LOGICAL_DATABASES } from '../databases.js'
import { ComparedBackup } from '../diff/compared-backup.js'
import { diffBackups } from '../diff/diff-backups.js'
import { diffNow } from '../diff/diff-now.js'
import { BackupNotComparableError, ClosingError, StalledDiffError, TooManyRequestsError } from '../errors.js'
import { INTERNAL_TYPES, isOwnDocument } from '../own-documents.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import { SpooledSource } from '../restore/spooled-source.js'
import { StoredSource } from '../restore/stored-source.js'
import { Spool } from '../spool/spool.js'
import { onAbort } from '../waits/linked-abort.js'
import { Silence } from '../waits/silence.js'
import type { Databases } from './databases.js'
import type { Instance } from './instance.js'

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
    const stream = new ReadDiff((signal) => {
      const own = client.with({ retry: settings.retry, signal }).for('downloads')
      const close = () => stream.destroy(new ClosingError())
      return this.#inPlace(() => this.#diff(id, options, own), close)
    }, settings.timeouts.idle)
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
      this.#instance.diffs.take(full, stay).catch(refuse)
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
    const backup = await this.#load(id, client)
    if (against === 'now') yield* this.#diffNow(backup, wanted, values, client)
    else yield* this.#diffBackups(backup, await this.#load(against, client), wanted, values)
  }

  /**
   * @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError, BackupNotComparableError, KeyUnavailableError,
   * WrongKeyError, NotSealedBackupError
   */
  async #load(id: string, client: CouchClient): Promise<LoadedBackup> {
    const loaded = await this.#databases.repository.on(client).get(id)
    const { state } = loaded
    if (state === 'running') throw new BackupNotComparableError(id, 'it is still in progress')
    if (state === 'failed') throw new BackupNotComparableError(id, 'it has failed')
    return loaded
  }

  async *#diffBackups(
    one: LoadedBackup,
    other: LoadedBackup,
    databases: readonly LogicalDatabase[],
    values: boolean
  ): AsyncGenerator<DocumentDiff> {
    const opened: ComparedBackup[] = []
    try {
      for (const loaded of [one, other])
        opened.push(await ComparedBackup.open(loaded, databases, this.#newSpool, this.#form))
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
    const source = backup.isLegacy
      ? await SpooledSource.ofLegacy(backup, this.#newSpool, this.#form)
      : await StoredSource.openUnchecked(backup, databases, this.#newSpool)
    try {
      yield* diffNow({
        backup: backup.id,
        source,
        databases,
        targets: this.#databases.sourcesOn(client),
        isOwn: (target, id, type) => this.#databases.holdsOwn(target) && isOwnDocument(id, type),
        internalTypes: INTERNAL_TYPES,
        keepTypes: this.#instance.keepTypes(backup.isBeforeRestore),
        values
      })
    } finally {
      await source.close()
    }
  }

  get #form() {
    const { inflatedBytes } = this.#instance.options.limits
    return { names: this.#databases.names, inflatedBytes }
  }

  readonly #newSpool = () => new Spool(this.#instance.room)
}

/** Streams what differs, as it is read. Fails when its reader stops reading, and ends its source at once. */
class ReadDiff extends Readable implements DiffStream {
  readonly #open: (signal: AbortSignal) => AsyncGenerator<DocumentDiff>
  readonly #abort = new AbortController()
  readonly #reader: Silence
  #diffs: AsyncGenerator<DocumentDiff> | undefined

  /** @param open is given what ends the calls that it reads by @param idle milliseconds without a read that end it */
  constructor(open: (signal: AbortSignal) => AsyncGenerator<DocumentDiff>, idle: number) {
    super({ objectMode: true, highWaterMark: AHEAD })
    this.#open = open
    this.#reader = new Silence(idle, () => this.destroy(new StalledDiffError(idle)))
  }

  override _read(): void {
    this.#reader.pause()
    this.#diffs ??= this.#open(this.#abort.signal)
    this.#diffs.next().then(
      ({ done, value }) => {
        if (this.destroyed) return
        this.#reader.wait()
        this.push(done ? null : value)
      },
      (error) => this.destroy(error)
    )
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#reader.end()
    this.#abort.abort(error ?? new Error('the diff was given up'))
    this.#diffs?.return(undefined).catch(() => undefined)
    callback(error)
  }
}
