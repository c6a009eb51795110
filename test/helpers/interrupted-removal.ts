import { LEASE } from './database.js'
import type { StoredBackupsOf } from './stored-backups.js'

/** Marks backups as removed, as an instance does before it deletes their chunks. */
export async function markRemoved(
  stored: StoredBackupsOf,
  ids: readonly string[],
  system: string
): Promise<void> {
  for (const id of ids) {
    const { _rev } = await stored.db.get(id)
    await stored.db.insert({
      _id: id,
      _rev,
      type: 'athena_backup_removed',
      storage: { layout: 2, system },
      reasons: ['no rule keeps it']
    } as never)
  }
}

/** Marks backups as removed, and has the lease say that an instance removes them which has died. */
export async function leaveRemoval(
  stored: StoredBackupsOf,
  ids: readonly string[],
  system: string
): Promise<void> {
  await markRemoved(stored, ids, system)
  const holder = {
    operation: 'prune',
    id: 'prune_1',
    instance: 'dead',
    claim: 'dead',
    beat: 1,
    settled: true
  }
  const before = await stored.db.get(LEASE).catch(() => undefined)
  const rev = before && { _rev: before._rev }
  await stored.db.insert({ _id: LEASE, ...rev, type: LEASE, ...holder, ttl: 1000 } as never)
}
