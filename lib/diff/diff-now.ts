import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import type { CouchDatabase } from '../couch/database.js'
import { Decider } from '../restore/decider.js'
import type { DecidedWrite, Decision, Deletion } from '../restore/decision.js'
import { Plan, partitionsOf } from '../restore/plan.js'
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
  const decider = new DiffDecider(target, kept, scope, { database, values })
  const plan = { source, database, scope, internalTypes, keepIds }
  for (const partition of partitionsOf(target, plan)) {
    const made = await Plan.make(decider, plan, partition)
    for (const design of [false, true])
      for await (const decisions of made.decisions(design)) yield* decider.told(decisions)
    for await (const deletions of made.deletions()) yield* decider.told(deletions)
  }
}

/** Decides as a restore does, and keeps what is to be told of documents while they are in memory. */
class DiffDecider extends Decider {
  readonly #form: DiffForm
  readonly #found = new WeakMap<Decision, DocumentDiff | undefined>()

  constructor(target: TargetView, keepTypes: ReadonlySet<string>, scope: Scope, form: DiffForm) {
    super(target, keepTypes, scope)
    this.#form = form
  }

  protected override async compared(
    decision: DecidedWrite | Deletion,
    document: SourceDocument | undefined,
    current: LiveDocument
  ): Promise<void> {
    const after = await comparableOf(current)
    if (!document) return void this.#found.set(decision, await onlyIn('after', after, this.#form))
    const sameAttachments = () => this.target.hasSameAttachments(document, current)
    const before = await comparableOf(document)
    this.#found.set(decision, await compareVersions(before, after, this.#form, sameAttachments))
  }

  /** Yields what is told of a group of decisions, while it is valid. */
  async *told(decisions: readonly Decision[]): AsyncGenerator<DocumentDiff> {
    for (const decision of decisions) {
      const found = await this.#tell(decision)
      if (found) yield found
    }
  }

  async #tell(decision: Decision): Promise<DocumentDiff | undefined> {
    switch (decision.action) {
      case 'create':
        return onlyIn('before', await comparableOf(decision.document), this.#form)
      case 'change':
      case 'delete':
        return this.#found.get(decision)
      case 'fail':
        return toldUnknown(this.#form.database, decision.id, `${decision.error}: ${decision.reason}`)
      default:
        return undefined
    }
  }
}
