import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import type { CouchDatabase } from '../couch/database.js'
import { Decider } from '../restore/decider.js'
import type { Decision } from '../restore/decision.js'
import { partitionsOf, RestorePlan } from '../restore/plan.js'
import { Scope } from '../restore/scope.js'
import type { LiveDocument, RestoreSource, SourceDocument } from '../restore/source.js'
import { TargetView } from '../restore/target.js'
import { comparableOf, compareVersions, type DiffForm, onlyIn } from './compare.js'
import { toldUnknown } from './told.js'
import { unreadDocuments } from './unread.js'

interface DiffNowOptions {
  backup: string
  source: RestoreSource
  databases: readonly LogicalDatabase[]
  targets: Record<LogicalDatabase, CouchDatabase>
  /** Tells whether a target's document belongs to the plugin. */
  isOwn: (target: CouchDatabase, id: string, type: string | undefined) => boolean
  internalTypes: ReadonlySet<string>
  /** Types of documents that are left out, beside those that the backup has left out. */
  keepTypes: ReadonlySet<string>
  values: boolean
}

/** Tells how databases differ from a backup, by the plan of an exact restore. @throws DamagedBackupError, CouchError */
export async function* diffNow(options: DiffNowOptions): AsyncGenerator<DocumentDiff> {
  const { backup, source, databases } = options
  for (const database of databases) {
    if (!source.databases.includes(database)) continue
    const unread = unreadDocuments(backup, source.about(database))
    for (const { id, reason } of unread) yield toldUnknown(database, id, reason)
    yield* diffDatabase(database, new Set(unread.map(({ id }) => id)), options)
  }
}

async function* diffDatabase(
  database: LogicalDatabase,
  keepIds: ReadonlySet<string>,
  { source, targets, isOwn, internalTypes, keepTypes, values }: DiffNowOptions
): AsyncGenerator<DocumentDiff> {
  const db = targets[database]
  const own = (id: string, type: string | undefined) => isOwn(db, id, type)
  const target = (await TargetView.find(db, own)) ?? TargetView.ofNothing(db, own)
  const kept = new Set([...keepTypes, ...(source.about(database).excluded_types ?? [])])
  const scope = Scope.ofAll(database)
  const form = { database, values }
  const compare = async (document: SourceDocument | undefined, current: LiveDocument) => {
    const after = await comparableOf(current)
    if (!document) return onlyIn('after', after, form)
    const sameAttachments = () => target.hasSameAttachments(document, current)
    return compareVersions(await comparableOf(document), after, form, sameAttachments)
  }
  const decider = new Decider(target, kept, scope, compare)
  const options = { source, database, scope, internalTypes, keepIds }
  for (const partition of partitionsOf(target, options)) {
    const plan = await RestorePlan.make(decider, options, partition)
    for (const design of [false, true])
      for await (const decisions of plan.decisions(design)) yield* told(decisions, form)
    for await (const deletions of plan.deletions()) yield* told(deletions, form)
  }
}

/** Yields what is told of a group of decisions, while it is valid. */
async function* told(
  decisions: readonly Decision<DocumentDiff>[],
  form: DiffForm
): AsyncGenerator<DocumentDiff> {
  for (const decision of decisions) {
    const found = await toldOf(decision, form)
    if (found) yield found
  }
}

async function toldOf(decision: Decision<DocumentDiff>, form: DiffForm): Promise<DocumentDiff | undefined> {
  switch (decision.action) {
    case 'create':
      return onlyIn('before', await comparableOf(decision.document), form)
    case 'change':
    case 'delete':
      return decision.compared
    case 'fail':
      return toldUnknown(form.database, decision.id, `${decision.error}: ${decision.reason}`)
    default:
      return undefined
  }
}
