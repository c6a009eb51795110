import type { CouchDatabase } from '../couch/database.js'
import { BACKUP_TYPE } from '../own-documents.js'
import { COMPARE_BATCH } from './plan.js'
import { type IsOwn, TargetView } from './target.js'

/** Documents of a page that are looked at though their ids are not those of the plugin's own: transactions have any. */
const MOST_OTHER_IDS = 20

/** Returns whether a database has documents, but for the plugin's own. @throws CouchError */
export async function holdsDocuments(db: CouchDatabase, isOwn: IsOwn): Promise<boolean> {
  const view = await TargetView.find(db, isOwn)
  if (!view) return false
  // A replica that lags may lack all documents.
  if (view.replicas !== 'agree') return true
  for await (const rows of view.rows('revision')) {
    const ids = rows.map(({ id }) => id)
    const others = ids.filter((id) => !isOwn(id, BACKUP_TYPE))
    if (others.length > MOST_OTHER_IDS || (await anyOther(view, ids))) return true
  }
  return false
}

async function anyOther(view: TargetView, ids: readonly string[]): Promise<boolean> {
  for (let i = 0; i < ids.length; i += COMPARE_BATCH) {
    for await (const { state } of view.current(ids.slice(i, i + COMPARE_BATCH)))
      if (state === 'live' || state === 'unreadable') return true
  }
  return false
}
