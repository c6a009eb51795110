import type { CouchDatabase } from '../couch/database.js'
import { isConflict } from '../couch/errors.js'
import { ReservedIdError } from '../errors.js'
import { LEASE_ID, LEASE_TYPE } from './names.js'

export type Operation = 'backup' | 'restore'

export interface LeaseHolder {
  operation: Operation
  /** Id of the backup, or of the restore's transaction. */
  id: string
  /** Server instance that works on it. */
  instance: string
}

interface LeaseDocument extends Partial<LeaseHolder> {
  type: typeof LEASE_TYPE
  /** The database server's clock when the lease was last renewed, in milliseconds. */
  renewed: number
  /** Written anew with every renewal, so that a lost reply can be told from another holder. */
  beat: string
  /** Transactions whose clients were not told of their end yet. */
  notify?: string[]
}

/** Somebody else holds the lease. */
export class LeaseHeldError extends Error {
  override readonly name = 'LeaseHeldError'
  readonly holder: LeaseHolder

  constructor(holder: LeaseHolder) {
    super(`a ${holder.operation} is in progress`)
    this.holder = holder
  }
}

/** This instance held the lease and must not write any more. */
export class LeaseLostError extends Error {
  override readonly name = 'LeaseLostError'

  constructor() {
    super('another server instance has taken over')
  }
}

/**
 * The right to run a backup or a restore, held by one server instance of all that share a database: a document whose
 * revision decides. (Not a local document: CouchDB 3 writes those without comparing revisions.) Time is the database
 * server's, as its answers tell it, so clocks of instances do not matter.
 *
 * The holder must call {@link Lease.check} right before each write: a process that was paused beyond the lease's time
 * finds that out before it writes again.
 */
export class Lease {
  readonly #db: CouchDatabase
  readonly #holder: LeaseHolder
  readonly #ttl: number
  readonly #onLost: (error: LeaseLostError) => void
  #beat = 0
  #timer: NodeJS.Timeout | undefined
  #renewing: Promise<void> = Promise.resolve()
  /** Until when, on this process' monotonic clock, nobody else can have taken the lease. */
  #validUntil = 0
  #ended = false

  private constructor(
    db: CouchDatabase,
    holder: LeaseHolder,
    ttl: number,
    acquiredAt: number,
    onLost: (error: LeaseLostError) => void
  ) {
    this.#db = db
    this.#holder = holder
    this.#ttl = ttl
    this.#onLost = onLost
    this.#validUntil = acquiredAt + ttl * 0.8
    this.#schedule()
  }

  /**
   * @param ttl milliseconds without renewal after which another instance may take the lease
   * @param onLost called once when the lease is lost
   * @throws LeaseHeldError, ReservedIdError
   */
  static async acquire(
    db: CouchDatabase,
    holder: LeaseHolder,
    ttl: number,
    onLost: (error: LeaseLostError) => void
  ): Promise<Lease> {
    for (;;) {
      // Before the read, whose answer tells the time that others will count from.
      const startedAt = performance.now()
      const current = await readLease(db)
      if (current && isHeld(current, db.client.serverTime, ttl)) throw new LeaseHeldError(holderOf(current))
      const beat = `${holder.instance}:${holder.id}:0`
      const { notify } = current ?? {}
      const doc: LeaseDocument = { type: LEASE_TYPE, ...holder, renewed: db.client.serverTime, beat, notify }
      await db
        .put({ ...doc, _id: LEASE_ID, ...(current ? { _rev: current._rev } : undefined) })
        .catch((error: unknown) => {
          if (!isConflict(error)) throw error
        })
      // Read back: a reply may have been lost, and nodes of a cluster may each have accepted a holder.
      const winner = await readLease(db)
      if (winner?.beat === beat) return new Lease(db, holder, ttl, startedAt, onLost)
    }
  }

  /** Who holds the lease, and whether they still renew it; `null` when nobody does. */
  static async inspect(
    db: CouchDatabase,
    ttl: number
  ): Promise<{ holder: LeaseHolder; stale: boolean } | null> {
    const lease = await readLease(db)
    if (lease?.operation === undefined) return null
    return { holder: holderOf(lease), stale: !isHeld(lease, db.client.serverTime, ttl) }
  }

  /**
   * Call right before every write.
   * @throws LeaseLostError
   */
  check(): void {
    if (this.#ended || performance.now() > this.#validUntil) throw new LeaseLostError()
  }

  /** Stops renewing without giving the lease back: whoever finds it stale cleans up. */
  abandon(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }

  /**
   * Gives the lease back. Never throws: a lease that cannot be given back becomes stale.
   * @param notify a transaction whose client is still to be told
   */
  async release(notify?: string): Promise<void> {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#timer)
    await this.#renewing
    await this.#db
      .modify<LeaseDocument>(LEASE_ID, (current) => {
        if (!current?.beat?.startsWith(this.#mine)) return null
        const pending = [...(current.notify ?? []), ...(notify === undefined ? [] : [notify])]
        return { type: LEASE_TYPE, renewed: 0, beat: `${this.#holder.instance}:free`, notify: pending }
      })
      .catch(() => undefined)
  }

  /** Transactions whose clients were not told of their end yet. */
  static async toNotify(db: CouchDatabase): Promise<string[]> {
    return (await readLease(db))?.notify ?? []
  }

  /** The client of this transaction was told, or cannot be. */
  static async notified(db: CouchDatabase, txId: string): Promise<void> {
    await db.modify<LeaseDocument>(LEASE_ID, (current) => {
      if (!current?.notify?.includes(txId)) return null
      return { ...current, notify: current.notify.filter((id) => id !== txId) }
    })
  }

  #schedule(): void {
    this.#timer = setTimeout(() => {
      this.#renewing = this.#renew().finally(() => {
        if (!this.#ended) this.#schedule()
      })
    }, this.#ttl / 4)
    this.#timer.unref()
  }

  async #renew(): Promise<void> {
    const startedAt = performance.now()
    try {
      // Reading first tells the server's clock, and whose the lease is.
      const current = await readLease(this.#db)
      if (!current?.beat?.startsWith(this.#mine)) return this.#lose()
      if (this.#ended) return
      const renewed = this.#db.client.serverTime
      const beat = `${this.#mine}${++this.#beat}`
      const doc: LeaseDocument = { type: LEASE_TYPE, ...this.#holder, renewed, beat, notify: current.notify }
      await this.#db.put({ ...doc, _id: LEASE_ID, _rev: current._rev })
      this.#validUntil = startedAt + this.#ttl * 0.8
    } catch {
      // The next renewal tries again, and sees whose the lease is; `check` refuses once the time is up.
      if (performance.now() > this.#validUntil) this.#lose()
    }
  }

  /** What the heartbeats of this lease begin with. */
  get #mine(): string {
    return `${this.#holder.instance}:${this.#holder.id}:`
  }

  #lose(): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#timer)
    this.#onLost(new LeaseLostError())
  }
}

/** @throws ReservedIdError: what stands there is not ours to write over */
async function readLease(db: CouchDatabase): Promise<(LeaseDocument & { _rev: string }) | null> {
  const lease = await db.get<LeaseDocument>(LEASE_ID)
  if (lease && lease.type !== LEASE_TYPE) throw new ReservedIdError(LEASE_ID, db.name)
  return lease
}

/** `Date` headers have whole seconds: two of them may be a second further apart than the moments they tell. */
const CLOCK_STEP = 1000

function isHeld(lease: LeaseDocument, now: number, ttl: number): boolean {
  return lease.operation !== undefined && now - lease.renewed < ttl + CLOCK_STEP
}

function holderOf(lease: LeaseDocument): LeaseHolder {
  const { operation, id, instance } = lease as LeaseDocument & LeaseHolder
  return { operation, id, instance }
}
