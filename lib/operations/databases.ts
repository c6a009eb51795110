import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import type { CouchClient } from '../couch/client.js'
import { CouchDatabase } from '../couch/database.js'
import { byDatabase } from '../databases.js'
import { MissingDatabaseError } from '../errors.js'
import { Repository } from '../repository/repository.js'
import type { Instance } from './instance.js'

export class Databases {
  readonly names: Required<DatabaseNames>
  /** Keeps the backups; for calls that somebody waits for. */
  readonly repository: Repository
  /** The source database with the lease; for calls that somebody waits for. */
  readonly system: CouchDatabase

  /** @param backups talks to the server that keeps the backups, if that is another than the sources' */
  constructor(names: Required<DatabaseNames>, { client, turns, clock, keyring }: Instance, backups = client) {
    this.names = names
    const now = () => clock.now()
    this.repository = new Repository(new CouchDatabase(backups, names.backups), { turns, now, keyring })
    this.system = this.sourcesOn(client).system
  }

  sourcesOn(client: CouchClient): Record<LogicalDatabase, CouchDatabase> {
    return byDatabase((database) => new CouchDatabase(client, this.names[database]))
  }

  /** Returns whether a database may hold documents of the plugin: backups, the lease or notices. */
  holdsOwn(database: CouchDatabase): boolean {
    return database.isSame(this.system) || this.repository.isIn(database)
  }

  /** Checks the system database: a mistyped name must not become a new one. @throws MissingDatabaseError */
  async requireSystem(): Promise<void> {
    if (await this.system.find()) return
    throw new MissingDatabaseError(
      `database "${this.system.name}" does not exist: check option "databases.system", create it, or restore a backup of it`
    )
  }
}
