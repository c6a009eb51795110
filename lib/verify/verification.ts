import type { LogicalDatabase } from '../../types/databases.js'
import type { VerifyDepth } from '../../types/verify.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { apiKey, LOGICAL_DATABASES } from '../databases.js'
import type { DamagedBackupError } from '../errors.js'
import type { DatabaseCheck } from '../repository/database-check.js'
import { type Finding, findingOf } from '../repository/findings.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import { newState, positionOf, stateAt, type VerifyState } from './position.js'

/** Damaged parts after which a verification ends early, since a position holds all of them. */
const MOST_FOUND = 1000
/** How many findings name documents. */
const WITH_DOCUMENTS = 100

/** Thrown when there are {@link MOST_FOUND} damaged parts. */
class EnoughError extends Error {}

/** Checks all parts of a backup without writing anything, from the start or from where it was interrupted. */
export class Verification {
  readonly #backup: LoadedBackup
  readonly #depth: VerifyDepth
  readonly #state: VerifyState
  readonly #problem: DamagedBackupError | undefined
  #since = performance.now()
  #isComplete = true

  /**
   * @param options `from`: a position to go on from; `problem`: what is wrong with the header, if it is unusable
   * @throws InvalidParameterError for a position of another verification
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

  /** Returns the position from which another verification can go on. */
  get position(): string {
    return positionOf({ ...this.#state, ms: this.duration })
  }

  get findings(): VerifyState['findings'] {
    return this.#state.findings
  }

  get counts(): VerifyState['counts'] {
    return this.#state.counts
  }

  /** Whether everything was checked, once the verification has ended. */
  get isComplete(): boolean {
    return this.#isComplete
  }

  get isGood(): boolean {
    return this.#found() === 0
  }

  /** Returns the milliseconds that it took, those before an interruption included. */
  get duration(): number {
    return Math.round(this.#state.ms + performance.now() - this.#since)
  }

  /**
   * Checks on to the end. When it throws, {@link position} says how far it came.
   * @param backup the same backup, with the client to read it by @throws CouchError
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
    const sum = LOGICAL_DATABASES.reduce((all, database) => all + this.#countInHeader(database), 0)
    if (header.doc_count !== sum) wrong(`says ${header.doc_count} documents, its databases hold ${sum}`)
  }

  /** Returns how many documents of a database the header claims. */
  #countInHeader(database: LogicalDatabase): number {
    const count = this.#backup.header.dbs[apiKey(database)]?.doc_count
    return typeof count === 'number' ? count : 0
  }

  async #checkDatabase(backup: LoadedBackup, database: LogicalDatabase): Promise<void> {
    const { id } = backup
    const check = await backup.check(database, (finding) => this.#add(database, finding))
    if (!check) {
      const count = this.#countInHeader(database)
      const reason = `lists nothing of the ${count} documents of ${database}`
      if (count > 0) this.#add(database, { part: 'header', id, reason })
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

  /** Notes a finding: one for each part, but several of the header. @throws EnoughError */
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
