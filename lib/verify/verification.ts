import type { LogicalDatabase } from '../../types/databases.js'
import type { VerifyDepth } from '../../types/verify.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import type { DamagedBackupError } from '../errors.js'
import type { DatabaseCheck } from '../repository/database-check.js'
import { type Finding, findingOf } from '../repository/findings.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import { newState, positionOf, stateAt, type VerifyState } from './position.js'

/** Damaged parts after which nothing more is looked for: a position holds them all. */
const MOST_FOUND = 1000
/** Findings that name documents. */
const WITH_DOCUMENTS = 100

/** More is wrong than is worth to be told one by one. */
class EnoughError extends Error {}

/** Checks all that a backup consists of, without writing anything, and goes on where it was interrupted. */
export class Verification {
  readonly #backup: LoadedBackup
  readonly #depth: VerifyDepth
  readonly #state: VerifyState
  readonly #problem: DamagedBackupError | undefined
  #since = performance.now()
  #isComplete = true

  /**
   * @param how.from a position; from the start without it
   * @param how.problem what is wrong with the header, if nothing can be read by it @throws InvalidParameterError
   */
  constructor(
    backup: LoadedBackup,
    depth: VerifyDepth,
    { from, problem }: { from?: string; problem?: DamagedBackupError } = {}
  ) {
    this.#backup = backup
    this.#depth = depth
    this.#problem = problem
    this.#state = from === undefined ? newState(backup, depth) : stateAt(from, backup, depth)
  }

  /** The position from which another verification can go on. */
  get position(): string {
    return positionOf({ ...this.#state, ms: this.duration })
  }

  get findings(): VerifyState['findings'] {
    return this.#state.findings
  }

  get counts(): VerifyState['counts'] {
    return this.#state.counts
  }

  /** Whether all was looked at, once it has ended. */
  get isComplete(): boolean {
    return this.#isComplete
  }

  get isGood(): boolean {
    return this.#found() === 0
  }

  /** Milliseconds, those before an interruption included. */
  get duration(): number {
    return Math.round(this.#state.ms + performance.now() - this.#since)
  }

  /**
   * Reads on to the end. When it throws, {@link position} tells how far it came.
   * @param backup the same, on the client that reads it @throws CouchError
   */
  async run(backup = this.#backup): Promise<void> {
    this.#since = performance.now()
    if (this.#problem) {
      for (const database of LOGICAL_DATABASES) this.#add(database, findingOf(this.#problem))
      this.#isComplete = false
      return
    }
    try {
      this.#checkHeader()
      while (this.#state.databases < LOGICAL_DATABASES.length) {
        await this.#checkDatabase(backup, LOGICAL_DATABASES[this.#state.databases])
        this.#state.databases++
        this.#state.chunks = 0
      }
    } catch (error) {
      if (!(error instanceof EnoughError)) throw error
      this.#isComplete = false
    }
  }

  #checkHeader(): void {
    const { id, header, isCurrent, isUntouched } = this.#backup
    const [first] = LOGICAL_DATABASES
    const wrong = (reason: string) => this.#add(first, { part: 'header', id, reason })
    if (isCurrent && !isUntouched) wrong('was changed after the backup had ended: its digest differs')
    const sum = LOGICAL_DATABASES.reduce((all, database) => all + this.#told(database), 0)
    if (header.doc_count !== sum) wrong(`says ${header.doc_count} documents, its databases hold ${sum}`)
  }

  #told(database: LogicalDatabase): number {
    const count = this.#backup.header.dbs[apiKey(database)]?.doc_count
    return typeof count === 'number' ? count : 0
  }

  async #checkDatabase(backup: LoadedBackup, database: LogicalDatabase): Promise<void> {
    const { id } = backup
    const check = await backup.check(database, (finding) => this.#add(database, finding))
    if (!check) {
      const told = this.#told(database)
      if (told > 0)
        this.#add(database, {
          part: 'header',
          id,
          reason: `lists nothing of the ${told} documents of ${database}`
        })
      return
    }
    await check.structure()
    if (this.#depth === 'structure') this.#state.counts[database] = { chunks: check.chunks, ...check.told }
    else await this.#readAll(database, check)
  }

  async #readAll(database: LogicalDatabase, check: DatabaseCheck): Promise<void> {
    const from = this.#state.chunks
    const counts = from > 0 ? this.#state.counts[database] : undefined
    const counted = counts ?? { chunks: 0, documents: 0, bytes: 0 }
    this.#state.counts[database] = counted
    for await (const { chunks, documents, bytes } of check.data(from)) {
      counted.documents += documents
      counted.bytes += bytes
      if (documents > 0) counted.chunks++
      this.#state.chunks = chunks
    }
    await check.once()
    check.checkCounted(counted.documents)
  }

  /** Notes what is wrong, of each part once. @throws EnoughError */
  #add(database: LogicalDatabase, { part, id, reason, documents }: Finding): void {
    const found = this.#state.findings[database] ?? []
    const isHeader = part === 'header'
    if (found.some((other) => other.id === id && (!isHeader || other.reason === reason))) return
    const named = documents && this.#found() < WITH_DOCUMENTS && { documents }
    found.push({ part, id, reason: cutText(reason, MOST.name), ...named })
    this.#state.findings[database] = found
    if (this.#found() >= MOST_FOUND) throw new EnoughError()
  }

  #found(): number {
    return Object.values(this.#state.findings).reduce((sum, findings) => sum + (findings?.length ?? 0), 0)
  }
}
