import type { BackupSummary } from '../../types/backups.js'
import type { DbBackups } from '../../types/index.js'
import { BackupNotFoundError } from '../errors.js'
import { isGoodBackup } from '../own-documents.js'

/** Summaries that are read at the same time. */
const AT_ONCE = 8
/** Backups that are looked at for a good one, beyond those that are listed. */
const LOOKED_AT = 200

/** Reads the summaries of backups, in the order of `ids`; one that was deleted meanwhile is left out. */
async function* summariesOf(backups: DbBackups, ids: readonly string[]): AsyncGenerator<BackupSummary> {
  for (let at = 0; at < ids.length; at += AT_ONCE) {
    const some = ids.slice(at, at + AT_ONCE).map((id) =>
      backups.summary(id).catch((error: unknown) => {
        if (error instanceof BackupNotFoundError) return undefined
        throw error
      })
    )
    for (const summary of await Promise.all(some)) if (summary) yield summary
  }
}

/** Reads the newest backups, and finds the newest good one, which may be older. */
export async function newest(
  backups: DbBackups,
  limit: number
): Promise<{ total: number; backups: BackupSummary[]; newest_good: BackupSummary | null }> {
  const ids = (await backups.list()).ids.reverse()
  const listed: BackupSummary[] = []
  for await (const summary of summariesOf(backups, ids.slice(0, limit))) listed.push(summary)
  let good = listed.find(isGoodBackup)
  if (!good) {
    for await (const summary of summariesOf(backups, ids.slice(limit, limit + LOOKED_AT))) {
      if (!isGoodBackup(summary)) continue
      good = summary
      break
    }
  }
  return { total: ids.length, backups: listed, newest_good: good ?? null }
}
