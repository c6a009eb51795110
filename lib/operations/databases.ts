import type { DatabaseNames, LogicalDatabase } from '../../types/databases.js'
import type { CouchClient } from '../couch/client.js'
import { CouchDatabase } from '../couch/database.js'
import { byDatabase } from '../databases.js'
import { MissingDatabaseError } from '../errors.js'
import { Repository } from '../repository/repository.js'
import type { Turns } from '../waits/turns.js'
import type { Instance } from './instance.js'

/** The databases by one set of names. */
export class Databases {
  readonly names: Required<DatabaseNames>
  /** Where backups are kept. For calls that somebody waits for. */
  readonly repository: Repository
  /** The source database where the lease lies. For calls that somebody waits for. */
  readonly system: CouchDatabase
  readonly #turns: Turns

  constructor(names: Required<DatabaseNames>, { client, turns }: Instance) {
    this.names = names
    this.#turns = turns
    this.repository = this.repositoryOn(client)
    this.system = this.sourcesOn(client).system
  }

  sourcesOn(client: CouchClient): Record<LogicalDatabase, CouchDatabase> {
    return byDatabase((database) => new CouchDatabase(client, this.names[database]))
  }

  /** @param backups the database that keeps the backups, where it is another instance's */
  repositoryOn(client: CouchClient, backups = this.names.backups): Repository {
    return new Repository(new CouchDatabase(client, backups), this.#turns)
  }

  /**
   * Checks that the system database is there. Only a restore that holds it creates it: a mistyped name would look like an
   * empty database from then on.
   * @throws MissingDatabaseError
   */
  async requireSystem(): Promise<void> {
    if (await this.system.find()) return
    throw new MissingDatabaseError(
      `database "${this.system.name}" does not exist: check option "databases.system", create it, or restore a backup of it`
    )
  }
}
