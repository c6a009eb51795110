import { randomBytes } from 'node:crypto'
import type { OperationKind } from '../../types/events.js'
import type { CouchClient } from '../couch/client.js'
import type { CouchDatabase } from '../couch/database.js'
import { expected, isConflict, isCouchError } from '../couch/errors.js'
import type { Leaf } from '../couch/leaves.js'
import { ReservedIdError } from '../errors.js'
import { LEASE_ID, LEASE_TYPE } from '../own-documents.js'

/** Milliseconds that a lease can last without a renewal: a document that says more was written by hand. */
export const LONGEST_LEASE = 60 * 60_000

export interface LeaseHolder {
  operation: OperationKind
  id: string
  instance: string
}

/** The content of one revision of the lease. */
export interface LeaseState extends Partial<LeaseHolder> {
  /** Names the attempt that wrote the revision; unique among all instances. */
  claim: string
  beat: number
  /** Whether the claim has become a lease. Absent while nobody holds it. */
  settled?: boolean
  /** Milliseconds without a renewal after which the lease is stale. */
  ttl?: number
  /** Revision that this one was written over; absent for the first. */
  over?: string
  /** Claim that this one takes over. */
  after?: string
  /** Number that holders hand on; by this name because the first were those of backups. */
  newest?: string
}

/** A leaf of the lease document. Replicas of a cluster may have accepted several. */
export interface LeaseLeaf extends LeaseState {
  rev: string
  deleted: boolean
  /** The document as read: earlier versions had other members. */
  doc: Leaf['doc']
}

/**
 * Tells which replicas accepted a write: most, one of two, fewer, or (`null`) none. Most replicas can have accepted
 * only one of the writes over a revision.
 */
export type Written = { rev: string; by: 'most' | 'half' | 'some' } | null

/** Matches the ids that an operation's record can have: no other operation could record its end. */
const ID = /^[^_].{0,199}$/
/** Matches kinds of operations, those of later versions as well: they keep others away too. */
const OPERATION = /^[a-z][a-z_]{0,39}$/

/** Reads and writes the lease in one attempt: callers know for how long to retry. @throws CouchError */
export class LeaseDocument {
  readonly #db: CouchDatabase
  /** Replicas of the document, as the database told last. */
  #replicas: number | undefined

  constructor(db: CouchDatabase) {
    this.#db = db
  }

  get client(): CouchClient {
    return this.#db.client
  }

  /** Name of the database that it lies in. */
  get database(): string {
    return this.#db.name
  }

  /** Returns every leaf that most replicas know, the one that CouchDB shows first. @throws ReservedIdError */
  async read(): Promise<LeaseLeaf[]> {
    const leaves = await this.#db.leaves(LEASE_ID)
    if (leaves.some(({ deleted, doc }) => !deleted && doc.type !== LEASE_TYPE))
      throw new ReservedIdError(LEASE_ID, this.database)
    return leaves.map(leafOf)
  }

  /** Writes `state` over the revision that it names. One attempt of each call. */
  async write(state: LeaseState): Promise<Written> {
    const written = await this.#put({ ...state, _rev: state.over })
    if (!written) return null
    const { rev, majority } = written
    if (majority) return { rev, by: 'most' }
    // Two replicas have no majority once one is down. Where it was never told, there may be more.
    const info = await this.#db.once.info().catch(expected(isCouchError, undefined))
    this.#replicas = info?.cluster?.n ?? this.#replicas
    return { rev, by: this.#replicas === 2 ? 'half' : 'some' }
  }

  /** Removes a leaf that means nothing any more, if it is still there. One attempt. */
  async remove(rev: string): Promise<void> {
    await this.#put({ _rev: rev, _deleted: true })
  }

  /** Returns `null` after a conflict. */
  #put(doc: Partial<LeaseState> & { _rev: string | undefined; _deleted?: true }) {
    const written = this.#db.once.putUnconfirmed({ ...doc, _id: LEASE_ID, type: LEASE_TYPE })
    return written.catch(expected(isConflict, null))
  }
}

export const newClaim = (): string => randomBytes(12).toString('hex')

/** Returns the state in which nobody has the lease, to be written over the revision `over`. */
export const freed = ({ claim, beat, newest }: LeaseState, over: string | undefined): LeaseState => ({
  claim,
  beat,
  newest,
  over
})

/** Returns whether a leaf says that somebody has, or wants, the lease. */
export const isBusy = ({ deleted, operation }: LeaseLeaf): boolean => !deleted && operation !== undefined

export const holderOf = ({ operation, id, instance }: LeaseLeaf): LeaseHolder => ({
  operation: operation as OperationKind,
  id: String(id),
  instance: String(instance)
})

/** Reads the members of a leaf that have the right type: others may have been written by hand. */
function leafOf({ rev, deleted, doc }: Leaf): LeaseLeaf {
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  const known = OPERATION.test(text(doc.operation) ?? '') && ID.test(text(doc.id) ?? '')
  return {
    rev,
    deleted,
    doc,
    operation: known ? (doc.operation as OperationKind) : undefined,
    id: text(doc.id),
    instance: text(doc.instance),
    // Earlier versions wrote no claim, and their beats are texts.
    claim: text(doc.claim) ?? `${text(doc.instance)}:${text(doc.id)}:${text(doc.beat)}`,
    beat: typeof doc.beat === 'number' ? doc.beat : 0,
    settled: doc.settled !== false,
    ttl: typeof doc.ttl === 'number' ? doc.ttl : undefined,
    over: text(doc.over),
    after: text(doc.after),
    newest: /^[0-9]{1,20}$/.test(text(doc.newest) ?? '') ? text(doc.newest) : undefined
  }
}
