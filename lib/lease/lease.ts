import { setTimeout as sleep } from 'node:timers/promises'
import { nameOfServer } from '../databases.js'
import { LeaseLostError } from '../errors.js'
import { freed, isBusy, type LeaseDocument, type LeaseState, type Written } from './lease-document.js'

/** Share of its time for which a lease is relied on after a renewal. The rest is a margin. */
const RELIED_ON = 0.8
/** Attempts to give the lease back, and milliseconds between them. */
const RETURN_ATTEMPTS = 5
const RETURN_WAIT = 100
/** Milliseconds between later attempts. */
const RETURN_LATER = 1000

/**
 * The right to be the one operation that runs. A renewal counts when most replicas accept it in time.
 * Call {@link Lease.check} before each write: a paused process learns there that it lost the lease.
 */
export class Lease {
  readonly #document: LeaseDocument
  readonly #ttl: number
  readonly #onReturned: () => void
  #onLost: (error: LeaseLostError) => void = () => {}
  #state: LeaseState
  /** The revision; `undefined` when the document is gone. */
  #rev: string | undefined
  /** The renewal under way: repeated unchanged until its fate is known, so that it stays one revision. */
  #next: LeaseState | undefined
  /** The time on the monotonic clock until which nobody else can have taken the lease. */
  #validUntil: number
  #timer: NodeJS.Timeout | undefined
  #renewing: Promise<unknown> = Promise.resolve()
  #ended = false
  #lost = new LeaseLostError('the lease was given back')

  /**
   * @param state the claim, as it was written
   * @param times when the claim was sent, on the monotonic clock, and how long it lasts without a renewal
   * @param onReturned called when the lease is given back
   */
  constructor(
    document: LeaseDocument,
    state: LeaseState,
    rev: string,
    times: { claimedAt: number; ttl: number },
    onReturned: () => void
  ) {
    this.#document = document
    this.#state = state
    this.#rev = rev
    this.#ttl = times.ttl
    this.#onReturned = onReturned
    this.#validUntil = times.claimedAt + (state.ttl as number) * RELIED_ON
  }

  /** Makes the claim a lease and renews it. Calls `onLost` once. @returns whether that was possible */
  async settle(onLost: (error: LeaseLostError) => void): Promise<boolean> {
    this.#state = { ...this.#state, settled: true, ttl: this.#ttl }
    const startedAt = performance.now()
    if (!(await this.#renew())) return false
    this.#onLost = onLost
    this.#schedule(startedAt + this.#ttl / 4)
    return true
  }

  /** Checks that this instance may write. @throws LeaseLostError */
  check(): void {
    if (this.#ended) throw this.#lost
    if (performance.now() > this.#validUntil) throw this.#expired()
  }

  /** Stops renewing without giving the lease back: the instance that finds it stale cleans up. */
  abandon(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }

  /** Gives the lease back, in several attempts. Never throws: a lease that is left becomes stale. */
  async release(): Promise<void> {
    if (this.#ended) return
    this.abandon()
    await this.#renewing
    this.#onReturned()
    for (let attempt = 1; attempt <= RETURN_ATTEMPTS; attempt++) {
      if (await this.#giveBack()) return
      await sleep(RETURN_WAIT)
    }
    this.#giveBackLater(performance.now() + this.#ttl)
  }

  /** Tries again to give the lease back, unawaited, until it is stale. */
  #giveBackLater(until: number): void {
    const timer = setTimeout(async () => {
      if (!(await this.#giveBack()) && performance.now() < until) this.#giveBackLater(until)
    }, RETURN_LATER)
    timer.unref()
  }

  /** @returns whether nothing is left to give back */
  async #giveBack(): Promise<boolean> {
    try {
      const written = await this.#document.write(freed(this.#state, this.#rev))
      if (!written) return !(await this.#find())
      await this.#tidy(written.rev)
      return true
    } catch {
      return false
    }
  }

  /** Removes free leaves of other instances beside this instance's leaf, while that one stands. */
  async #tidy(rev: string): Promise<void> {
    const leaves = (await this.#document.read()).filter(({ deleted }) => !deleted)
    if (!leaves.some((leaf) => leaf.rev === rev)) return
    for (const leaf of leaves) if (leaf.rev !== rev && !isBusy(leaf)) await this.#document.remove(leaf.rev)
  }

  #schedule(at: number): void {
    this.#timer = setTimeout(
      () => {
        this.#renewing = this.#keep()
      },
      Math.max(0, at - performance.now())
    )
    this.#timer.unref()
  }

  async #keep(): Promise<void> {
    const startedAt = performance.now()
    // A process that was paused does not renew.
    const renewed = startedAt <= this.#validUntil && (await this.#renew())
    if (this.#ended) return
    if (performance.now() > this.#validUntil) this.#lose(this.#expired())
    else this.#schedule(renewed ? startedAt + this.#ttl / 4 : performance.now() + this.#ttl / 16)
  }

  /** Returns whether most replicas accepted a renewal in time. */
  async #renew(): Promise<boolean> {
    const startedAt = performance.now()
    this.#next ??= { ...this.#state, beat: this.#state.beat + 1, over: this.#rev }
    const next = this.#next
    try {
      const written = await this.#document.write(next)
      if (written?.by === 'most') return this.#extend(next, written, startedAt)
      const found = await this.#find()
      return found && written?.by === 'half' && this.#extend(next, written, startedAt)
    } catch {
      // The next renewal tries again; `check` refuses once the time is up.
      return false
    }
  }

  #extend(state: LeaseState, { rev }: NonNullable<Written>, startedAt: number): boolean {
    this.#rev = rev
    this.#state = state
    this.#next = undefined
    // A renewal acknowledged late may have been accepted after another instance took over.
    if (performance.now() > this.#validUntil) return false
    this.#validUntil = startedAt + this.#ttl * RELIED_ON
    return true
  }

  /** Finds out, after a write that most replicas did not accept, whether the lease is still this instance's. */
  async #find(): Promise<boolean> {
    const leaves = (await this.#document.read()).filter(({ deleted }) => !deleted)
    const { claim } = this.#state
    const ours = leaves.filter((leaf) => leaf.claim === claim && isBusy(leaf))
    if (leaves.some((leaf) => leaf.after === claim) || (ours.length === 0 && leaves.length > 0)) {
      this.#lose(this.#lostBy('another server instance has taken over'))
      return false
    }
    const latest = ours.sort((a, b) => b.beat - a.beat)[0]
    if (latest?.rev === this.#rev) return ours.length > 0
    // An earlier attempt took effect after all, or the document is gone with its database.
    this.#rev = latest?.rev
    this.#state.beat = latest?.beat ?? this.#state.beat
    this.#next = undefined
    return latest !== undefined
  }

  #expired(): LeaseLostError {
    return this.#lostBy('the lease could not be renewed in time')
  }

  #lostBy(why: string): LeaseLostError {
    const { server } = this.#document.client.settings
    return new LeaseLostError(server ? `${nameOfServer(server)}: ${why}` : why)
  }

  #lose(error: LeaseLostError): void {
    this.#lost = error
    if (this.#ended) return
    this.abandon()
    this.#onLost(error)
  }
}
