import { isBusy, type LeaseDocument, type LeaseLeaf } from './lease-document.js'
import { type Inspected, Leases } from './leases.js'

/** Keeps transactions whose clients are to be told of their end. */
export type KeepNotices = (txIds: readonly string[]) => Promise<void>

/** Says who holds the lease, or has left it; `former` where earlier versions kept it. */
export type FoundLease = Inspected & { former?: true }

/** Keeps what earlier versions noted in the lease, before it is written over. */
export const keepNotices = (leaves: readonly LeaseLeaf[], keep: KeepNotices): Promise<void> =>
  keep(leaves.flatMap(({ doc: { notify } }) => (Array.isArray(notify) ? notify.filter(isText) : [])))

const isText = (value: unknown): boolean => typeof value === 'string'

/** Deals with what earlier versions have left: notices in the lease, and a lease in another database. */
export class EarlierVersions {
  readonly #current: LeaseDocument
  readonly #former: LeaseDocument | undefined
  readonly #leases: Leases | undefined
  readonly #keep: KeepNotices
  /** Whether what was noted in the lease of now was handed over. */
  #passed = false

  /**
   * @param former the lease where earlier versions kept it, when that is another database
   * @param ttl as for {@link Leases}
   */
  constructor(
    current: LeaseDocument,
    former: LeaseDocument | undefined,
    options: { ttl: number; keep: KeepNotices }
  ) {
    this.#current = current
    this.#former = former
    this.#leases = former && new Leases(former, former, options.ttl)
    this.#keep = options.keep
  }

  /** Returns who holds the former lease, or has left it. */
  async inspect(): Promise<FoundLease | null> {
    const found = await this.#leases?.inspect()
    return found ? { ...found, former: true } : null
  }

  /** Hands over what was noted in a lease, and removes a former lease that nobody holds. */
  async move(): Promise<void> {
    await this.#discard()
    if (this.#passed) return
    await keepNotices(await this.#current.read(), this.#keep)
    this.#passed = true
  }

  /** Removes the former lease of an operation that was ended. */
  async discard({ former, claim }: FoundLease): Promise<void> {
    if (former) await this.#discard(claim)
  }

  /** @param claim of the lease that is to be removed; where somebody has another, nothing is removed */
  async #discard(claim?: string): Promise<void> {
    if (!this.#former) return
    const live = (await this.#former.read()).filter(({ deleted }) => !deleted)
    if (live.some((leaf) => isBusy(leaf) && leaf.claim !== claim)) return
    await keepNotices(live, this.#keep)
    for (const { rev } of live) await this.#former.remove(rev)
  }
}
