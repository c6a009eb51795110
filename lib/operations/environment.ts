import { randomBytes } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { LogicalDatabase } from '../../types/databases.js'
import { CouchClient } from '../couch/client.js'
import { connectionTo } from '../couch/connection.js'
import { CouchDatabase } from '../couch/database.js'
import { FOREGROUND } from '../couch/retry.js'
import { BackupNotFoundError, InvalidParameterError, UnknownLayoutError } from '../errors.js'
import type { ReadBackupOptions } from '../format/read-backup.js'
import { LeaseDocument } from '../lease/lease-document.js'
import { Leases } from '../lease/leases.js'
import { Notices } from '../lease/notices.js'
import { EventStream } from '../observe/event-stream.js'
import { logListener } from '../observe/log.js'
import { Metrics } from '../observe/metrics.js'
import type { ResolvedOptions } from '../options.js'
import { BackupStore, type LoadedBackup } from '../repository/backup-store.js'
import { LAYOUT } from '../repository/layout.js'
import { EXCLUDED_TYPES, isBackupId } from '../repository/names.js'
import { Room } from '../spool/room.js'
import { Spool } from '../spool/spool.js'
import { Turns } from '../waits/turns.js'
import { BackgroundJobs } from './background-jobs.js'
import { Downloads } from './downloads.js'
import { Places } from './places.js'

const MAX_BACKUP_ID = 64
/** Appends that may wait until others have arrived. */
const MOST_WAITING = 256

/** What the operations of one registration share, whatever the names of its databases. */
export class Instance {
  /** Names this server instance. */
  readonly name = randomBytes(8).toString('hex')
  /** For calls that somebody waits for. */
  readonly client: CouchClient
  readonly jobs = new BackgroundJobs()
  readonly events: EventStream
  readonly metrics: Metrics | undefined
  /** For what is spooled of uploads. */
  readonly room: Room
  /** Those who change a header on this instance take turns. */
  readonly turns = new Turns()
  readonly downloads: Downloads
  readonly uploads: Places
  /** For appends whose bodies arrive. */
  readonly appends: Places
  readonly #deadline = new AbortController()

  constructor(options: ResolvedOptions, log: FastifyBaseLogger) {
    const { couch, limits, timeouts, retry, metrics, onEvent } = options
    this.client = new CouchClient({
      connect: () => connectionTo(couch),
      retry: FOREGROUND,
      control: timeouts.control,
      idle: timeouts.idle,
      requestBytes: limits.requestBytes
    })
    this.room = new Room(options.spoolDirectory, limits.spoolBytes)
    const bounds = { most: limits.downloads, idle: timeouts.idle, deadline: this.deadline }
    // Most of a backup may have arrived when the database restarts: that is waited for, as running operations do.
    this.downloads = new Downloads(this.client.with({ retry }), bounds)
    this.uploads = new Places({ most: limits.uploads })
    const appends = { most: limits.appends, waiting: MOST_WAITING, patience: timeouts.control }
    this.appends = new Places(appends)
    this.metrics = metrics && new Metrics(metrics)
    this.events = new EventStream(
      [logListener(log), this.metrics?.listener, onEvent].filter((listener) => listener !== undefined),
      (error, { type }) => log.error({ err: error, event: type }, 'a listener of events failed')
    )
  }

  /** Aborted when a closing server waits for replies no longer. */
  get deadline(): AbortSignal {
    return this.#deadline.signal
  }

  /** Ends what still replies after so many milliseconds. */
  endRepliesWithin(ms: number): void {
    const late = setTimeout(() => this.#deadline.abort(), ms)
    this.deadline.addEventListener('abort', () => clearTimeout(late), { once: true })
  }

  /** Ends what still replies, and cuts the connections to the database. */
  async close(): Promise<void> {
    this.#deadline.abort()
    await this.client.close()
  }
}

/** What the operations on the databases of one set of names share: options, databases, jobs, events. */
export class Environment {
  readonly options: ResolvedOptions
  /** Names this server instance. */
  readonly instance: string
  /** For calls that somebody waits for. */
  readonly client: CouchClient
  /** On {@link client}. */
  readonly store: BackupStore
  /** The source database where the lease lies. On {@link client}. */
  readonly system: CouchDatabase
  readonly leases: Leases
  /** The lease where earlier versions kept it, when that is another database. */
  readonly formerLeases: Leases | undefined
  readonly notices: Notices
  readonly room: Room
  readonly downloads: Downloads
  readonly uploads: Places
  readonly jobs: BackgroundJobs
  readonly events: EventStream
  readonly metrics: Metrics | undefined
  /** Types of documents that backups leave out. */
  readonly excludeTypes: ReadonlySet<string>
  readonly #turns: Turns

  constructor(options: ResolvedOptions, instance: Instance) {
    this.options = options
    this.instance = instance.name
    this.client = instance.client
    this.room = instance.room
    this.downloads = instance.downloads
    this.uploads = instance.uploads
    this.#turns = instance.turns
    this.jobs = instance.jobs
    this.events = instance.events
    this.metrics = instance.metrics
    this.store = this.storeOn(this.client)
    this.system = this.databasesOn(this.client).system
    this.notices = new Notices(this.system)
    const { system, backups } = options.databases
    this.leases = this.#leasesIn(system)
    this.formerLeases = backups === system ? undefined : this.#leasesIn(backups)
    this.excludeTypes = new Set([...EXCLUDED_TYPES, ...options.excludeTypes])
  }

  #leasesIn(database: string): Leases {
    const { control, lease } = this.options.timeouts
    // A renewal that stalls leaves time for another.
    const settings = { control: Math.min(control, lease / 3), idle: lease }
    const on = (client: CouchClient) => new LeaseDocument(new CouchDatabase(client.with(settings), database))
    return new Leases(on(this.client), on(this.client.reserved()), lease)
  }

  /** @throws InvalidParameterError, BackupNotFoundError, UnknownLayoutError */
  async load(id: string): Promise<LoadedBackup> {
    if (typeof id !== 'string' || id.length > MAX_BACKUP_ID || !isBackupId(id)) {
      throw new InvalidParameterError('backup_id is not the id of a backup')
    }
    const loaded = await this.store.load(id)
    if (!loaded) throw new BackupNotFoundError(id)
    if (loaded.kind === 'chunks' && !(loaded.header.storage.layout <= LAYOUT))
      throw new UnknownLayoutError(id)
    return loaded
  }

  databasesOn(client: CouchClient): Record<LogicalDatabase, CouchDatabase> {
    const on = (database: LogicalDatabase) => new CouchDatabase(client, this.options.databases[database])
    return { components: on('components'), sessions: on('sessions'), system: on('system') }
  }

  /** @param backups the database that keeps the backups, where it is another instance's */
  storeOn(client: CouchClient, backups = this.options.databases.backups): BackupStore {
    return new BackupStore(new CouchDatabase(client, backups), this.#turns)
  }

  makeSpool(): Spool {
    return new Spool(this.room)
  }

  /** How a backup that is one JSON document is to be read. */
  readOptions(): ReadBackupOptions {
    const { databases: names, limits } = this.options
    return { names, inflatedBytes: limits.inflatedBytes }
  }
}
