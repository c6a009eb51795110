import type { CopiesState } from '../couch/copies.js'
import type { CouchDatabase } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import { SourceWatch } from '../couch/source-watch.js'
import { Applier } from './apply.js'
import { Confirmation } from './confirm.js'
import { Plan, type PlanOptions, partitionsOf } from './plan.js'
import { Tally, type TallyOptions } from './tally.js'
import { Target } from './target.js'

export interface DatabaseRestoreOptions extends PlanOptions, TallyOptions {
  target: CouchDatabase
  /** Tells whether the target's document of this id and type belongs to the backups: it is left alone. */
  isOwn(id: string, type: string | undefined): boolean
  /** Decides, and writes nothing. */
  dryRun: boolean
  /** Deletes what the backup does not hold. */
  exact: boolean
}

/**
 * Brings one database to what the backup holds: writes what is missing or differs, leaves the rest. `counts` tells
 * what was done as it goes.
 *
 * @returns what was known of the database's copies, by which documents were found that the backup does not hold
 * @throws CouchError when the database cannot be worked with; single documents that fail are counted instead
 */
export async function restoreDatabase(options: DatabaseRestoreOptions): Promise<CopiesState> {
  const { source, database, dryRun } = options
  const create = dryRun ? undefined : source.about(database)
  const target = await Target.find(options.target, options.isOwn, create)
  const tally = new Tally(options)
  await (dryRun ? comparePartitions(target, tally, options) : writePartitions(target, tally, options))
  return target.copies
}

async function comparePartitions(
  target: Target,
  tally: Tally,
  options: DatabaseRestoreOptions
): Promise<void> {
  for (const partition of partitionsOf(target, options)) {
    const plan = await Plan.make(target, options, partition)
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

async function writePartitions(target: Target, tally: Tally, options: DatabaseRestoreOptions): Promise<void> {
  const watch = new SourceWatch(target.db)
  for (const partition of partitionsOf(target, options)) {
    const info = await watch.begin()
    if (!info) throw replaced(target.db)
    const since = target.sequenceBefore(info)
    const plan = await Plan.make(target, options, partition)
    await writePlan(plan, tally, { since, exact: options.exact })
    if (await watch.changed(since)) throw replaced(target.db)
  }
}

async function writePlan(
  plan: Plan,
  tally: Tally,
  { since, exact }: { since: string; exact: boolean }
): Promise<void> {
  const applier = new Applier(plan, tally)
  try {
    // Design documents last, so that indexes are built once.
    for (const design of [false, true]) {
      for await (const decisions of plan.decisions(design)) {
        tally.addTotal(decisions.length)
        await applier.apply(decisions)
      }
      await applier.finish()
    }
    await new Confirmation(applier).run(since)
    if (!exact) return
    for await (const deletions of plan.deletions()) await applier.delete(deletions)
  } finally {
    await applier.settle()
  }
}

/** Says that what was written before, or found to be there, is gone. */
const replaced = ({ name }: CouchDatabase) =>
  new CouchError(`database "${name}"`, {
    error: 'changed',
    reason:
      'it was deleted and created again, or documents were purged, while it was restored; restore it again'
  })
