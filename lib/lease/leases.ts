import { setTimeout as sleep } from 'node:timers/promises'
import type { CouchClient } from '../couch/client.js'
import { CouchError, expected, isCouchError } from '../couch/errors.js'
import { sortLeaves } from '../couch/leaves.js'
import type { LeaseLostError } from '../errors.js'
import { Lease } from './lease.js'
import {
  freed,
  holderOf,
  isBusy,
  type LeaseDocument,
  type LeaseHolder,
  type LeaseLeaf,
  type LeaseState,
  LONGEST_LEASE,
  newClaim,
  type Written
} from './lease-document.js'

/** Attempts to take the lease while others try as well, and milliseconds between them. */
const ATTEMPTS = 30
const FIRST_WAIT = 20
const LONGEST_WAIT = 500
/** Milliseconds that a claim lasts after its instance died. */
const CLAIM_TTL = 10_000
/** Milliseconds for all attempts, when each answer is slow. */
const PATIENCE = 20_000
/** Given-up claims that this instance remembers. */
const REMEMBERED = 200

/** Thrown when another operation holds the lease. */
export class LeaseHeldError extends Error {
  override readonly name = 'LeaseHeldError'
  readonly holder: LeaseHolder

  constructor(holder: LeaseHolder) {
    super(`a ${holder.operation} is in progress`)
    this.holder = holder
  }
}

/** Thrown when the stale lease that was to be taken over is gone. */
export class LeaseGoneError extends Error {
  override readonly name = 'LeaseGoneError'
}

interface LeaseRequest {
  /** Claim of a stale lease: only that one is taken over, and no free one. */
  insteadOf?: string
  /** Returns who is to hold it, and the number to hand on; `carried` is the largest of those before. */
  holder(carried: bigint): { holder: LeaseHolder; carried: bigint }
  /** Called once when the lease is lost. */
  onLost(error: LeaseLostError): void
}

/** Says who holds the lease. */
export interface Inspected {
  holder: LeaseHolder
  claim: string
  /** Milliseconds until the lease is stale, unless it is renewed; 0 when it is. */
  staleIn: number
}

interface SeenLeaf extends LeaseLeaf {
  /** Milliseconds until it is stale, 0 when it is; `undefined` when it gives nobody the lease. */
  staleIn: number | undefined
}

/**
 * Returns a lease's document, and how it is taken, on a client whose calls end soon enough: a renewal that stalls leaves
 * time for another.
 * @param documentOn returns the document on a client @param beforeOverwrite as of {@link Leases}
 */
export function leasesOn(
  client: CouchClient,
  documentOn: (client: CouchClient) => LeaseDocument,
  { control, lease }: { control: number; lease: number },
  beforeOverwrite?: BeforeOverwrite
): { document: LeaseDocument; leases: Leases } {
  const soon = client.with({ control: Math.min(control, lease / 3), idle: lease })
  const document = documentOn(soon)
  return { document, leases: new Leases(document, documentOn(soon.for('renewals')), lease, beforeOverwrite) }
}

type BeforeOverwrite = (leaves: readonly LeaseLeaf[]) => Promise<void>

/** Takes the lease for one instance. docs/internals/clusters.md tells why there are never two holders. */
export class Leases {
  readonly #document: LeaseDocument
  readonly #renewals: LeaseDocument
  readonly #ttl: number
  readonly #beforeOverwrite: BeforeOverwrite
  /** When this instance first knew of each busy leaf, by revision, on its monotonic clock. */
  #known = new Map<string, number>()
  /** Claims of this instance that never became a lease, or were given back. */
  readonly #over = new Set<string>()
  /** Leaves of such claims that were freed. */
  #freed: string[] = []

  /**
   * @param renewals the same document, on connections that nothing else waits for
   * @param ttl milliseconds without a renewal after which the leases of this instance are stale
   * @param beforeOverwrite saves what else the leaves say, before they are written over
   */
  constructor(
    document: LeaseDocument,
    renewals: LeaseDocument,
    ttl: number,
    beforeOverwrite: BeforeOverwrite = async () => {}
  ) {
    this.#document = document
    this.#renewals = renewals
    this.#ttl = ttl
    this.#beforeOverwrite = beforeOverwrite
  }

  /** Returns who holds the lease, or has left it; `null` when nobody does. A claim is no lease yet. */
  async inspect(): Promise<Inspected | null> {
    const leaves = await this.#read()
    const found = leaves.find(isHeld) ?? leaves.find(isStale)
    return found ? { holder: holderOf(found), claim: found.claim, staleIn: found.staleIn ?? 0 } : null
  }

  /** Takes the lease if free or stale. @throws LeaseHeldError, LeaseGoneError, ReservedIdError, CouchError */
  async acquire(request: LeaseRequest): Promise<Lease> {
    const retrier = this.#document.client.retrier()
    const until = performance.now() + PATIENCE
    for (let attempt = 1; ; attempt++) {
      const last = attempt >= ATTEMPTS || performance.now() > until
      try {
        const lease = await this.#attempt(request)
        if (lease instanceof Lease) {
          await this.#removeFreed()
          return lease
        }
        if (last) throw lease
      } catch (error) {
        if (error instanceof LeaseHeldError) await this.#removeFreed()
        if (last) throw error
        await retrier.failed(error)
      }
      // Instances that met must not meet again.
      const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(attempt - 1, 5))
      await sleep(wait * (0.25 + 0.75 * Math.random()))
    }
  }

  async #read(): Promise<SeenLeaf[]> {
    const askedAt = performance.now()
    const leaves = await this.#document.read()
    const now = performance.now()
    this.#known = new Map(leaves.filter(isBusy).map(({ rev }) => [rev, this.#known.get(rev) ?? now]))
    return leaves.map((leaf) => ({ ...leaf, staleIn: this.#staleIn(leaf, askedAt) }))
  }

  /** Compares no clocks: a lease is stale if this instance has seen no change of its document for `ttl`. */
  #staleIn({ rev, claim, ttl = 0 }: LeaseLeaf, askedAt: number): number | undefined {
    const knownAt = this.#known.get(rev)
    if (knownAt === undefined) return undefined
    if (this.#over.has(claim)) return 0
    const lasts = ttl > 0 && ttl <= LONGEST_LEASE ? ttl : this.#ttl
    return Math.max(0, knownAt + lasts - askedAt)
  }

  /** Tries once to take the lease. Returns the reason when others got in between. */
  async #attempt(request: LeaseRequest): Promise<Lease | Error> {
    const before = await this.#read()
    const held = before.find(isHeld)
    if (held) throw new LeaseHeldError(holderOf(held))
    const { insteadOf } = request
    if (insteadOf !== undefined && !before.some((leaf) => isBusy(leaf) && leaf.claim === insteadOf))
      throw new LeaseGoneError()
    // A claim becomes a lease, or goes, within moments.
    const wanted = before.find(isAlive)
    if (wanted) return new LeaseHeldError(holderOf(wanted))
    await this.#beforeOverwrite(before)
    return this.#claim(before, request)
  }

  async #claim(before: readonly SeenLeaf[], request: LeaseRequest): Promise<Lease | Error> {
    const state = this.#newState(before, request)
    const claimedAt = performance.now()
    let written: Written = null
    try {
      written = await this.#document.write(state)
      if (written && (await this.#isAlone(state, written, before))) {
        const lease = new Lease(this.#renewals, state, written.rev, { claimedAt, ttl: this.#ttl }, () =>
          this.#giveUp(state.claim)
        )
        if (await lease.settle(request.onLost)) return lease
      }
    } catch (error) {
      await this.#retract(state, written?.rev)
      throw error
    }
    if (written) await this.#retract(state, written.rev)
    return contended(this.#document.database)
  }

  #newState(leaves: readonly SeenLeaf[], request: LeaseRequest): LeaseState {
    const left = leaves.filter(isBusy)
    // CouchDB takes no further revision of a document whose leaves are all deleted.
    const base = left.find(({ settled }) => settled) ?? leaves.find(({ deleted }) => !deleted)
    const numbers = leaves.map(({ newest }) => BigInt(newest ?? 0)).sort((a, b) => (a < b ? -1 : 1))
    const { holder, carried } = request.holder(numbers.at(-1) ?? 0n)
    return {
      ...holder,
      claim: newClaim(),
      beat: 0,
      settled: false,
      ttl: Math.min(this.#ttl, CLAIM_TTL),
      newest: String(carried),
      over: base?.rev,
      after: base && isBusy(base) ? base.claim : undefined
    }
  }

  /** Returns whether nobody else has, or may get, the lease. Removes leaves that are known to be nobody's. */
  async #isAlone(
    state: LeaseState,
    written: NonNullable<Written>,
    before: readonly SeenLeaf[]
  ): Promise<boolean> {
    if (written.by === 'some') return false
    const others = (await this.#read()).filter(({ claim, deleted }) => claim !== state.claim && !deleted)
    const isNobodys = (leaf: SeenLeaf) =>
      !isBusy(leaf) ||
      isStale(leaf) ||
      before.some((seen) => seen.rev === leaf.rev && isStale(seen)) ||
      // Most replicas took this instance's claim over that revision, so they cannot have taken another.
      (written.by === 'most' && leaf.over === state.over)
    if (!others.every(isNobodys)) return false
    for (const { rev } of others) await this.#document.remove(rev)
    return true
  }

  /** Takes back a claim that did not become a lease; if that fails, the claim becomes stale. */
  async #retract(state: LeaseState, rev: string | undefined): Promise<void> {
    this.#giveUp(state.claim)
    const takenBack = this.#document.client.retry(() => this.#takeBack(state, rev))
    await takenBack.catch(expected(isCouchError, undefined))
  }

  /**
   * Removes a claim where another leaf stays. If only claims stand, frees the one that CouchDB shows: if
   * all were removed at once, replicas would make different revisions of the next.
   */
  async #takeBack(state: LeaseState, written: string | undefined): Promise<void> {
    const { claim } = state
    const live = (await this.#read()).filter(({ deleted }) => !deleted)
    const stays = live.some((leaf) => leaf.claim !== claim && leaf.settled)
    // The claim may lie on a replica that was not asked.
    const unseen = written !== undefined && live.every((leaf) => leaf.claim !== claim)
    const all = sortLeaves(unseen ? [...live, { rev: written, deleted: false, claim }] : live)
    for (const { rev } of all.filter((leaf) => leaf.claim === claim)) {
      if (stays || rev !== all[0].rev) await this.#document.remove(rev)
      else {
        const free = await this.#document.write(freed(state, rev))
        if (free) this.#freed.push(free.rev)
      }
    }
  }

  /** Removes what this instance freed once a lease stands beside it: other instances may not see it. */
  async #removeFreed(): Promise<void> {
    // The next holder removes what stays; this instance may hold the lease already.
    for (const rev of this.#freed.splice(0)) await this.#document.remove(rev).catch(() => undefined)
  }

  #giveUp(claim: string): void {
    this.#over.add(claim)
    const [oldest] = this.#over
    if (this.#over.size > REMEMBERED) this.#over.delete(oldest)
  }
}

const isStale = ({ staleIn }: SeenLeaf): boolean => staleIn === 0
const isAlive = ({ staleIn = 0 }: SeenLeaf): boolean => staleIn > 0
/** Returns whether a leaf is a renewed lease, rather than a claim. */
const isHeld = (leaf: SeenLeaf): boolean => leaf.settled === true && isAlive(leaf)

const contended = (database: string): CouchError =>
  new CouchError(`the lease in database "${database}"`, {
    error: 'no_majority',
    reason: 'most replicas of the document have to accept one holder, and have not',
    retryable: true
  })
