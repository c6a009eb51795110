import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import type { ReplicasState } from '../couch/replicas.js'
import { SourceWatch } from '../couch/source-watch.js'
import { type ChangedFields, ToldFields } from '../format/told-fields.js'
import { bodyDifferences } from '../json/differences.js'
import { inTurns } from '../waits/steps.js'
import { Applier } from './apply.js'
import { Confirmation } from './confirm.js'
import { Decider } from './decider.js'
import { type PlanOptions, partitionsOf, RestorePlan } from './plan.js'
import { headOf, type LiveDocument, type SourceDocument } from './source.js'
import { Tally, type TallyOptions } from './tally.js'
import { TargetView } from './target.js'

interface CompareOptions extends PlanOptions {
  /** Deletes what the backup does not hold. */
  exact: boolean
}

interface DatabaseRestoreOptions extends CompareOptions, TallyOptions {
  target: CouchDatabase
  /** Types of documents that `exact` must not delete: what backups leave out, and transactions. */
  keepTypes: ReadonlySet<string>
  /** Tells whether the target's document of this id and type belongs to the backups: it is left alone. */
  isOwn(id: string, type: string | undefined): boolean
  dryRun: boolean
}

/** Makes a database what the backup holds; documents that fail are counted. @throws CouchError */
export async function restoreDatabase(options: DatabaseRestoreOptions): Promise<ReplicasState> {
  const { target: db, isOwn, dryRun, keepTypes } = options
  const found = await TargetView.find(db, isOwn)
  const tally = new Tally(options)
  const target = found ?? (dryRun ? TargetView.ofNothing(db, isOwn) : await create(options))
  const compare = dryRun && options.report.tellsChanges ? changedFields : undefined
  const decider = new Decider(target, keepTypes, options.scope, compare)
  const told = { ...options, onRead: (bytes: number) => tally.addBytes(bytes) }
  await (dryRun ? comparePartitions(decider, tally, told) : writePartitions(db, decider, tally, told))
  return target.replicas
}

async function create({ target: db, isOwn, source, database }: DatabaseRestoreOptions): Promise<TargetView> {
  await db.ensure(source.about(database))
  return TargetView.ofNothing(db, isOwn, await db.info())
}

/** Finds the members in which a document that is to be changed differs. */
async function changedFields(
  document: SourceDocument | undefined,
  current: LiveDocument
): Promise<ChangedFields | undefined> {
  if (!document) return undefined
  const told = new ToldFields(false)
  const same = await inTurns(bodyDifferences(current, headOf(document), (name) => told.add(name)))
  // Attachments are looked at only where the body says the same.
  if (same) told.add('_attachments')
  return told.changed
}

/** Makes the plan, and counts what would be done: nothing that it is given can write. */
async function comparePartitions(
  decider: Decider<ChangedFields>,
  tally: Tally,
  options: CompareOptions
): Promise<void> {
  for (const partition of partitionsOf(decider.target, options)) {
    const plan = await RestorePlan.make(decider, options, partition)
    for (const design of [false, true]) {
      for await (const decisions of plan.decisions(design)) {
        tally.addTotal(decisions.length)
        for (const decision of decisions) await tally.countOnly(decision)
      }
    }
    if (!options.exact) continue
    for await (const deletions of plan.deletions())
      for (const deletion of deletions) await tally.countOnly(deletion)
  }
}

async function writePartitions(
  db: CouchDatabase,
  decider: Decider,
  tally: Tally,
  options: CompareOptions
): Promise<void> {
  const { target } = decider
  const watch = new SourceWatch(db)
  for (const partition of partitionsOf(target, options)) {
    const info = await watch.begin()
    if (!info) throw replaced(db)
    const since = target.sequenceBefore(info)
    const plan = await RestorePlan.make(decider, options, partition)
    const applier = new Applier(db, decider, tally, partition.documents)
    await applyPlan(plan, applier, since, options.exact)
    if (await watch.changed(since)) throw replaced(db)
  }
}

async function applyPlan(plan: RestorePlan, applier: Applier, since: string, exact: boolean): Promise<void> {
  try {
    // Design documents last, so that indexes are built once.
    for (const design of [false, true]) {
      for await (const decisions of plan.decisions(design)) {
        applier.tally.addTotal(decisions.length)
        await applier.apply(decisions)
      }
      await applier.finish()
    }
    await new Confirmation(applier, (design) => plan.documents(design)).run(since)
    if (!exact) return
    for await (const deletions of plan.deletions()) await applier.delete(deletions)
  } finally {
    await applier.settle()
  }
}

/** Makes the error for a database that has lost what was written or found before. */
const replaced = ({ name }: CouchDatabase) =>
  new CouchError(`database "${name}"`, {
    error: 'changed',
    reason:
      'it was deleted and created again, or documents were purged, while it was restored; restore it again'
  })
