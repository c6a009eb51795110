import { isBusy, type LeaseDocument, type LeaseLeaf } from './lease-document.js'
import { type Inspected, Leases } from './leases.js'

/** Keeps transactions whose clients are to be told of their end. */
export type KeepNotices = (txIds: readonly string[]) => Promise<void>

/** Says who holds the lease, or has left it; `former` where earlier versions kept it. */
export type FoundLease = Inspected & { former?: true }

/** Returns the transactions that earlier versions noted in the lease. */
export const noticesIn = (leaves: readonly LeaseLeaf[]): string[] =>
  leaves
    .flatMap(({ doc }) => (Array.isArray(doc.notify) ? doc.notify : []))
    .filter((id) => typeof id === 'string')

/** Deals with what earlier versions have left: notices in the lease, and a lease in another database. */
export class EarlierVersions {
  readonly #current: LeaseDocument
  readonly #former: LeaseDocument | undefined
  readonly #leases: Leases | undefined
  readonly #keep: KeepNotices
  #passed = false

  /** @param former the lease where earlier versions kept it, when that is another database */
  constructor(current: LeaseDocument, former: LeaseDocument | undefined, ttl: number, keep: KeepNotices) {
    this.#current = current
    this.#former = former
    this.#leases = former && new Leases(former, former, ttl)
    this.#keep = keep
  }

  async inspect(): Promise<FoundLease | null> {
    const found = await this.#leases?.inspect()
    return found ? { ...found, former: true } : null
  }

  /** Hands over what was noted in a lease, and removes a former lease that nobody holds. */
  async move(): Promise<void> {
    await this.discard()
    if (!this.#passed) await this.#keep(noticesIn(await this.#current.read()))
    this.#passed = true
  }

  /** Removes the former lease, unless somebody has one other than `ended`, whose operation was ended. */
  async discard(ended?: FoundLease): Promise<void> {
    if (!this.#former || (ended && !ended.former)) return
    const live = (await this.#former.read()).filter(({ deleted }) => !deleted)
    if (live.some((leaf) => isBusy(leaf) && leaf.claim !== ended?.claim)) return
    await this.#keep(noticesIn(live))
    for (const { rev } of live) await this.#former.remove(rev)
  }
}
