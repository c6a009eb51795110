import { randomBytes } from 'node:crypto'
import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import type { CouchClient } from '../couch/client.js'
import { CouchDatabase, type DatabaseSettings } from '../couch/database.js'
import { byDatabase } from '../databases.js'
import { MissingDatabaseError } from '../errors.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { Origin, Owner } from '../repository/owner.js'
import { Repository } from '../repository/repository.js'
import type { RestoreSource } from '../restore/source.js'
import { SpooledSource } from '../restore/spooled-source.js'
import type { StoredSource } from '../restore/stored-source.js'
import { Spool } from '../spool/spool.js'
import type { Resource } from './active-operations.js'
import type { Instance } from './instance.js'

/**
 * Keeps the id of the console beside the sources. No replication copies it: a copy of a console is another one, and must
 * not prune the backups of the first.
 */
const CONSOLE_ID = '_local/db_backups_console'

/** Gives the source databases and the repository of one set of names, and knows the console's id. */
export class Databases {
  readonly names: Required<DatabaseNames>
  /** Whether the backups are on another server than the sources. */
  readonly #isElsewhere: boolean
  /** The id of the console that the host gives. */
  readonly #console: string | undefined
  /** Keeps the backups; for calls that somebody waits for. */
  readonly repository: Repository
  /** The source database with the lease; for calls that somebody waits for. */
  readonly system: CouchDatabase
  readonly newSpool: () => Spool
  /** How backups in one document are read: uploads, and those of athena. */
  readonly form: { names: Required<DatabaseNames>; inflatedBytes: number }

  constructor(names: Required<DatabaseNames>, instance: Instance) {
    const { client, backups, options, headerMutex, clock, keyring, room } = instance
    this.names = names
    this.newSpool = () => new Spool(room)
    this.form = { names, inflatedBytes: options.limits.inflatedBytes }
    this.#isElsewhere = backups !== client
    this.#console = options.backups?.console
    const now = () => clock.now()
    this.repository = new Repository(new CouchDatabase(backups, names.backups), { headerMutex, now, keyring })
    this.system = this.sourcesOn(client).system
  }

  /** Returns the name and the id by which backups of this console are recognized in the repository. */
  async owner(): Promise<Owner> {
    const { name } = this.system
    if (!this.#isElsewhere) return { system: name }
    return { system: name, console: (await this.#idOn(this.system)) ?? null }
  }

  /**
   * Returns what a new backup tells of the console, which gets an id if it has none. Backups tell it wherever they are
   * kept: one that is copied to another server is known there by it. Under the lease of the sources.
   */
  async ensureOrigin(client: CouchClient): Promise<Origin> {
    const system = this.system.on(client)
    const known = await this.#idOn(system)
    if (known !== undefined) return { system: system.name, console: known }
    const id = randomBytes(8).toString('hex')
    await system.put({ _id: CONSOLE_ID, console: id })
    return { system: system.name, console: id }
  }

  async #idOn(system: CouchDatabase): Promise<string | undefined> {
    if (this.#console !== undefined) return this.#console
    const found = await system.get<{ console?: unknown }>(CONSOLE_ID)
    return typeof found?.console === 'string' ? found.console : undefined
  }

  sourcesOn(client: CouchClient): Record<LogicalDatabase, CouchDatabase> {
    return byDatabase((database) => new CouchDatabase(client, this.names[database]))
  }

  /** Opens a backup to be read: by `openStored`, unless athena made it, whose backups are spooled and checked. */
  open(
    backup: LoadedBackup,
    wanted: readonly LogicalDatabase[],
    openStored: typeof StoredSource.open
  ): Promise<RestoreSource> {
    return backup.isLegacy
      ? SpooledSource.ofLegacy(backup, this.newSpool, this.form)
      : openStored(backup, wanted, this.newSpool)
  }

  /** Returns whether a database may hold documents of the plugin: backups, the lease or notices. */
  holdsOwn(database: CouchDatabase): boolean {
    return database.isSame(this.system) || this.repository.isIn(database)
  }

  /**
   * Checks or creates what an operation works on: by itself the sources and the repository. Without `settings`, the
   * system database must exist. @throws MissingDatabaseError
   */
  async ensure(resources?: readonly Resource[], settings?: DatabaseSettings): Promise<void> {
    if (!resources || resources.includes('sources')) await this.#ensureSystem(settings)
    if (!resources || resources.includes('repository')) await this.#ensureRepository()
  }

  async #ensureRepository(): Promise<void> {
    if (!this.repository.isIn(this.system)) await this.repository.ensure()
  }

  /** Creates the system database by `settings`, or checks that it exists: a mistyped name must not become a new one. */
  async #ensureSystem(settings?: DatabaseSettings): Promise<void> {
    if (settings) return this.system.ensure(settings)
    if (await this.system.find()) return
    throw new MissingDatabaseError(
      `database "${this.system.name}" does not exist: check option "databases.system", create it, or restore a backup of it`
    )
  }
}
