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
import { unknownDiff } from './document-diff.js'
import { unreadDocuments } from './unread.js'

interface DiffNowOptions {
  backup: string
  source: RestoreSource
  databases: readonly LogicalDatabase[]
  targets: Record<LogicalDatabase, CouchDatabase>
  /** Returns whether a target's document belongs to the plugin. */
  isOwn: (target: CouchDatabase, id: string, type: string | undefined) => boolean
  internalTypes: ReadonlySet<string>
  /** Types of documents to leave out, beside those that the backup left out. */
  keepTypes: ReadonlySet<string>
  values: boolean
}

/**
 * Yields the documents that differ between a backup and the databases, by the plan of an exact restore.
 * @throws DamagedBackupError, CouchError
 */
export async function* diffNow(options: DiffNowOptions): AsyncGenerator<DocumentDiff> {
  const { backup, source, databases } = options
  for (const database of databases) {
    if (!source.databases.includes(database)) continue
    const unread = unreadDocuments(backup, source.about(database))
    for (const { id, reason } of unread) yield unknownDiff(database, id, reason)
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
      for await (const decisions of plan.decisions(design)) yield* diffsOf(decisions, form)
    for await (const deletions of plan.deletions()) yield* diffsOf(deletions, form)
  }
}

/** Yields the differences that decisions found. */
async function* diffsOf(
  decisions: readonly Decision<DocumentDiff>[],
  form: DiffForm
): AsyncGenerator<DocumentDiff> {
  for (const decision of decisions) {
    const found = await diffOfDecision(decision, form)
    if (found) yield found
  }
}

async function diffOfDecision(
  decision: Decision<DocumentDiff>,
  form: DiffForm
): Promise<DocumentDiff | undefined> {
  switch (decision.action) {
    case 'create':
      return onlyIn('before', await comparableOf(decision.document), form)
    case 'change':
    case 'delete':
      return decision.compared
    case 'fail':
      return unknownDiff(form.database, decision.id, `${decision.error}: ${decision.reason}`)
    default:
      return undefined
  }
}
