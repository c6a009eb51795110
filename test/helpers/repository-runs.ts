import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { runBackup } from '../../lib/backup/backup-job.js'
import type { CouchClient } from '../../lib/couch/client.js'
import { CouchDatabase } from '../../lib/couch/database.js'
import { backupContent } from '../../lib/format/content.js'
import { Progress } from '../../lib/observe/progress.js'
import { INTERNAL_TYPES, typesLeftOut } from '../../lib/own-documents.js'
import type { LoadedBackup } from '../../lib/repository/loaded-backup.js'
import type { Repository } from '../../lib/repository/repository.js'
import { runRestore } from '../../lib/restore/restore-job.js'
import { StoredSource } from '../../lib/restore/stored-source.js'
import { Room } from '../../lib/spool/room.js'
import { Spool } from '../../lib/spool/spool.js'
import type { LogicalDatabase } from '../../types/index.js'

type Sources = Record<LogicalDatabase, CouchDatabase>

/** Returns the source databases on a server. */
export const sourcesOn = (client: CouchClient, names: Record<LogicalDatabase, string>): Sources => ({
  components: new CouchDatabase(client, names.components),
  sessions: new CouchDatabase(client, names.sessions),
  system: new CouchDatabase(client, names.system)
})

/** Writes the header of a new backup in a repository, without a lease, and returns its id. */
export async function begin(repository: Repository, { system }: Sources): Promise<string> {
  const { id } = (await repository.newIds())(0n, [])
  const origin = { instance: 'test', console: { system: system.name }, versions: {} }
  if (!(await repository.runningBackup(id).begin(origin))) throw new Error(`${id} is taken`)
  return id
}

/** Makes a whole backup in a repository, without a lease. */
export async function backUp(repository: Repository, sources: Sources): Promise<LoadedBackup> {
  return runBackup({
    id: await begin(repository, sources),
    owner: { system: sources.system.name },
    sources,
    repository,
    excludeTypes: typesLeftOut(),
    onUnreadable: 'report',
    full: false,
    mayLack: false,
    incremental: { chain: 1000, waste: 0.25 },
    progress: new Progress(),
    onPhase() {}
  })
}

/** Returns what a get sends of a backup. */
export function sent(backup: LoadedBackup, names: Record<LogicalDatabase, string>): Promise<string> {
  const { body } = backupContent(backup, {
    names,
    inflatedBytes: 1e9,
    stream: (read) => Readable.from(read(backup), { objectMode: false })
  })
  return text(body)
}

/** Restores a backup, without a lease and a transaction. */
export function restore(backup: LoadedBackup, repository: Repository, targets: Sources) {
  return runRestore({
    txId: 'test',
    openSource: (wanted) => StoredSource.open(backup, wanted, () => new Spool(new Room(undefined, 1e9))),
    targets,
    choice: { skip: {}, only: undefined, exclude: {} },
    internalTypes: INTERNAL_TYPES,
    holdsOwn: (target) => repository.isIn(target),
    keepTypes: new Set(),
    settings: [],
    dryRun: false,
    exact: true,
    tell: async () => undefined,
    rebuildWhitelist: async () => undefined,
    progress: new Progress(),
    isCut: () => false,
    onPhase() {}
  })
}
