import type { LogicalDatabase } from '../../types/databases.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import type { CouchClient } from '../couch/client.js'
import { CouchDatabase } from '../couch/database.js'
import { LOGICAL_DATABASES, SCRATCH_PREFIX } from '../databases.js'
import { Progress } from '../observe/progress.js'
import { restoreDatabase } from '../restore/database-restore.js'
import { Decider } from '../restore/decider.js'
import { partitionsOf, RestorePlan } from '../restore/plan.js'
import { RestoreReport } from '../restore/restore-report.js'
import { Scope } from '../restore/scope.js'
import type { RestoreSource } from '../restore/source.js'
import { TargetView } from '../restore/target.js'

/** How many documents are named. */
const NAMED = 100
const NONE: ReadonlySet<never> = new Set<never>()

/** A document that is not in the scratch database as the backup holds it. */
interface ScratchProblem {
  database: LogicalDatabase
  id: string
  reason: string
}

export interface ScratchResult {
  /** Documents that were restored, and found to be the same. */
  restored: Partial<Record<LogicalDatabase, number>>
  problemCount: number
  problems: ScratchProblem[]
}

/** Why a restored document is a problem, by what another restore would do to it. */
const DIFFERENCES: Record<string, string> = {
  create: 'it was not restored',
  change: 'the restored document is not the one that the backup holds',
  delete: 'it was restored, and is not in the backup',
  skip: 'it is not restored'
}

/**
 * Restores into scratch databases, on the server of the sources. Their names depend only on the id of the verification,
 * so that another instance can delete them.
 */
export class Scratch {
  readonly #client: CouchClient
  readonly #id: string

  /** @param id of the verification: letters, digits and underscores */
  constructor(client: CouchClient, id: string) {
    this.#client = client
    this.#id = id
  }

  /** Deletes the scratch databases that exist. */
  async drop(): Promise<void> {
    for (const database of LOGICAL_DATABASES) await this.#target(database).destroy()
  }

  /** Restores each database, compares it with the backup, and deletes it. @throws CouchError */
  async run(source: RestoreSource): Promise<ScratchResult> {
    const result: ScratchResult = { restored: {}, problemCount: 0, problems: [] }
    for (const database of source.databases) {
      const target = this.#target(database)
      const wrong = new Problems(database, result)
      await restoreInto(source, target, database, wrong)
      result.restored[database] = await compare(byContent(source), target, database, wrong)
      await target.destroy()
    }
    return result
  }

  #target(database: LogicalDatabase): CouchDatabase {
    return new CouchDatabase(this.#client, `${SCRATCH_PREFIX}${this.#id}_${database}`)
  }
}

/** Counts and names problems. A named document counts once. */
class Problems {
  readonly #database: LogicalDatabase
  readonly #result: ScratchResult
  readonly #ids = new Set<string>()

  constructor(database: LogicalDatabase, result: ScratchResult) {
    this.#database = database
    this.#result = result
  }

  add(id: string, reason: string): void {
    const name = cutText(id, MOST.name)
    if (this.#ids.has(name)) return
    this.#result.problemCount++
    if (this.#result.problems.length >= NAMED) return
    this.#ids.add(name)
    this.#result.problems.push({ database: this.#database, id: name, reason: cutText(reason, MOST.reason) })
  }
}

/** Restores without a transaction, a white list, or anything else that is the host's. */
async function restoreInto(
  source: RestoreSource,
  target: CouchDatabase,
  database: LogicalDatabase,
  wrong: Problems
): Promise<void> {
  const report = new RestoreReport({ txId: '', dryRun: false, tell: async () => {}, onPhase() {} })
  try {
    await restoreDatabase({
      source,
      target,
      database,
      scope: Scope.ofAll(database),
      internalTypes: NONE,
      isOwn: () => false,
      keepTypes: NONE,
      keepIds: NONE,
      settings: NONE,
      dryRun: false,
      exact: false,
      counts: report.begin(database),
      progress: new Progress(),
      report
    })
    for (const { id, error, reason } of report.outcome.failures)
      wrong.add(id, `it cannot be restored: ${error}, ${reason}`)
  } finally {
    await report.stop()
  }
}

/** Returns the source with documents that are compared by their content, not by their revisions. */
const byContent = (source: RestoreSource): RestoreSource => ({
  proof: 'content',
  databases: source.databases,
  about: (database) => source.about(database),
  count: (database) => source.count(database),
  bytes: (database) => source.bytes(database),
  documents: (database, design) => source.documents(database, design),
  close: () => source.close()
})

/** Compares a database with the backup, document by document. @returns how many documents are the same */
async function compare(
  source: RestoreSource,
  target: CouchDatabase,
  database: LogicalDatabase,
  wrong: Problems
): Promise<number> {
  const view = await TargetView.find(target, () => false)
  if (!view) return 0
  const scope = Scope.ofAll(database)
  const decider = new Decider(view, NONE, scope)
  const options = { source, database, scope, internalTypes: NONE, keepIds: NONE }
  let same = 0
  for (const partition of partitionsOf(view, options)) {
    const plan = await RestorePlan.make(decider, options, partition)
    for (const design of [false, true]) {
      for await (const decisions of plan.decisions(design)) {
        for (const decision of decisions) {
          if (decision.action === 'leave') same++
          else
            wrong.add(
              decision.id,
              decision.action === 'fail' ? decision.reason : DIFFERENCES[decision.action]
            )
        }
      }
    }
    for await (const deletions of plan.deletions())
      for (const { id } of deletions) wrong.add(id, DIFFERENCES.delete)
  }
  return same
}
