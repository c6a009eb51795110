import type { Requester } from '../../types/backups.js'
import type { RunningOperation } from '../../types/index.js'
import { cutText, MOST } from '../bytes/cut-text.js'
import { CancelledError, NotCancellableError, NotRunningError } from '../errors.js'
import { Progress } from '../observe/progress.js'

/** The facts of an operation that are known when it begins. */
type AboutRunning = Omit<RunningOperation, 'since' | 'progress' | 'cancelling'>

interface Entry {
  about: AboutRunning
  since: number
  progress: Progress
  cancelling: boolean
  /** Ends the operation. Absent where nobody may. */
  cancel?: (error: CancelledError) => void
}

/** Knows the operations that run on this instance, whatever their databases, and cancels them. */
export class RunningOperations {
  readonly #entries = new Map<string, Entry>()

  /** Returns them, in the order in which they began. */
  get told(): RunningOperation[] {
    return [...this.#entries.values()].map(({ about, since, progress, cancelling }) => ({
      ...about,
      since,
      ...(progress.told && { progress: progress.told }),
      ...(cancelling && { cancelling: true as const })
    }))
  }

  /** Runs `work` as an operation that is told, and can be cancelled, until it ends. */
  async during<T>(
    about: AboutRunning,
    { progress = new Progress(), cancel }: Partial<Pick<Entry, 'progress' | 'cancel'>>,
    work: () => Promise<T>
  ): Promise<T> {
    this.#entries.set(about.id, { about, since: Date.now(), progress, cancelling: false, cancel })
    try {
      return await work()
    } finally {
      this.#entries.delete(about.id)
    }
  }

  /** Tells an operation to end, once. @throws NotRunningError, NotCancellableError */
  cancel(id: string, requester: Requester | undefined): RunningOperation {
    const entry = this.#entries.get(id)
    if (!entry) throw new NotRunningError(cutText(id, MOST.name))
    if (!entry.cancel) throw new NotCancellableError(id, entry.about.operation)
    if (!entry.cancelling) {
      entry.cancelling = true
      entry.cancel(new CancelledError(requester?.name ? ` by ${requester.name}` : ''))
    }
    return this.told.find((told) => told.id === id) as RunningOperation
  }
}
