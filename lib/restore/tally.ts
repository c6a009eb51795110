import type { DatabaseRestoreCounts } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import type { ChangedFields } from '../format/told-fields.js'
import type { Progress } from '../observe/progress.js'
import type { DecidedWrite, Decision, Deletion, Failure } from './decision.js'
import type { RestoreReport } from './restore-report.js'

/** How decisions are counted once they are carried out. */
const COUNTED = {
  create: 'created',
  change: 'changed',
  leave: 'unchanged',
  skip: 'skipped',
  delete: 'deleted'
} as const

type CountedAction = keyof typeof COUNTED

export interface TallyOptions {
  database: LogicalDatabase
  /** Kept up to date as documents are decided on and written. */
  counts: DatabaseRestoreCounts
  /** Ids of documents that hold a console's settings. */
  settings: ReadonlySet<string>
  progress: Progress
  report: RestoreReport
}

/** Counts what a restore does to one database, and tells what is to be told by name. */
export class Tally {
  readonly #options: TallyOptions
  #bytes = 0

  constructor(options: TallyOptions) {
    this.#options = options
  }

  addTotal(documents: number): void {
    this.#options.counts.total += documents
  }

  count(action: CountedAction): void {
    this.#options.counts[COUNTED[action]]++
    this.#showProgress()
  }

  /** Notes bytes of documents of the backup that were looked at. */
  addBytes(bytes: number): void {
    this.#bytes += bytes
    this.#showProgress()
  }

  #showProgress(): void {
    const { counts, progress } = this.#options
    const { created, changed, unchanged, skipped, failed } = counts
    progress.at(created + changed + unchanged + skipped + failed, this.#bytes)
  }

  /** Takes back what {@link count} counted of a document. */
  uncount(action: CountedAction): void {
    this.#options.counts[COUNTED[action]]--
  }

  fail({ id, error, reason }: Omit<Failure, 'action'>): void {
    const { counts, database, report } = this.#options
    counts.failed++
    report.addFailure({ database, id, error, reason })
  }

  /** Counts a decision for which nothing is to be done. */
  tell(decision: Exclude<Decision, DecidedWrite | Deletion>): void {
    if (decision.action === 'fail') this.fail(decision)
    else this.count(decision.action)
  }

  /** Counts a decision that is not carried out, and tells of it. */
  async countOnly(decision: Decision<ChangedFields>): Promise<void> {
    if (decision.action === 'fail') return this.fail(decision)
    this.count(decision.action)
    if (decision.action === 'leave' || decision.action === 'skip') return
    const { id, action } = decision
    const { database, report } = this.#options
    await this.announce(id, action)
    const fields = decision.action === 'change' ? decision.compared : undefined
    await report.addChange({ ...fields, database, id, change: COUNTED[action] })
  }

  /** Reports a settings document before it is changed. Returns nothing to wait for with other documents. */
  announce(id: string, action: 'create' | 'change' | 'delete'): Promise<void> | undefined {
    const { settings, report } = this.#options
    return settings.has(id) ? report.addSettings({ id, change: COUNTED[action] }) : undefined
  }
}
