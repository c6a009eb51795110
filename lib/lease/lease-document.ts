import { randomBytes } from 'node:crypto'
import type { OperationKind } from '../../types/events.js'
import type { CouchDatabase } from '../couch/database.js'
import { expected, isConflict } from '../couch/errors.js'
import type { Leaf } from '../couch/leaves.js'
import { ReservedIdError } from '../errors.js'
import { LEASE_ID, LEASE_TYPE } from '../own-documents.js'

/** Milliseconds that a lease can last without a renewal: a document that says more was written by hand. */
export const LONGEST_LEASE = 60 * 60_000

/** Says who holds the lease. */
export interface LeaseHolder {
  operation: OperationKind
  /** Id of the backup, or of the restore's transaction. */
  id: string
  /** Server instance that works on it. */
  instance: string
  /** Database that keeps the backups of this instance. */
  backups?: string
}

/** The content of one revision of the lease. */
export interface LeaseState extends Partial<LeaseHolder> {
  /** Names the attempt that wrote it: no two attempts of any instance have the same. */
  claim: string
  /** Increased by every renewal. */
  beat: number
  /** Whether the claim has become a lease. Absent while nobody holds it. */
  settled?: boolean
  /** Milliseconds without a renewal after which the lease is stale. */
  ttl?: number
  /** Revision that this one was written over; absent for the first. */
  over?: string
  /** Claim that this one takes over. */
  after?: string
  /** Number in the id of the newest backup that ever began. */
  newest?: string
}

/** A leaf of the lease document. Copies of a cluster may have accepted several. */
export interface LeaseLeaf extends LeaseState {
  rev: string
  deleted: boolean
  /** Transactions whose clients are to be told of their end, as earlier versions noted them. */
  notify: string[]
}

/**
 * How a write ended: accepted by most copies of the document, by one of two, by fewer, or (`null`) by none. Most
 * copies can have accepted only one of the writes over one revision.
 */
export type Written = { rev: string; by: 'most' | 'half' | 'some' } | null

/** Matches the ids that a backup or a transaction can have: the end of another operation could not be recorded. */
const ID = /^[^_].{0,199}$/
const OPERATIONS = { backup: true, restore: true } satisfies Record<OperationKind, true>

/** Reads and writes the document that says who holds the lease. Methods throw CouchError. */
export class LeaseDocument {
  readonly db: CouchDatabase

  constructor(db: CouchDatabase) {
    this.db = db
  }

  /**
   * Returns every leaf that most copies of the document know, the one that CouchDB shows first.
   * @throws ReservedIdError when a document of the console has the id
   */
  async read(): Promise<LeaseLeaf[]> {
    const leaves = await this.db.leaves(LEASE_ID)
    if (leaves.some(({ deleted, doc }) => !deleted && doc.type !== LEASE_TYPE))
      throw new ReservedIdError(LEASE_ID, this.db.name)
    return leaves.map(leafOf)
  }

  /** Writes `state` over the revision that it names. One attempt. */
  async write(state: LeaseState): Promise<Written> {
    const written = await this.#put({ ...state, _rev: state.over })
    if (!written) return null
    const { rev, majority } = written
    if (majority) return { rev, by: 'most' }
    // Two copies have no majority once one is down.
    const { cluster } = await this.db.info()
    return { rev, by: cluster?.n === 2 ? 'half' : 'some' }
  }

  /** Removes a leaf that means nothing any more, if it is still there. One attempt. */
  async remove(rev: string): Promise<void> {
    await this.#put({ _rev: rev, _deleted: true })
  }

  /** Returns `null` after a conflict. */
  #put(doc: Partial<LeaseState> & { _rev: string | undefined; _deleted?: true }) {
    const written = this.db.once.putUnconfirmed({ ...doc, _id: LEASE_ID, type: LEASE_TYPE })
    return written.catch(expected(isConflict, null))
  }
}

/** Returns a name for an attempt to take the lease. */
export const newClaim = (): string => randomBytes(12).toString('hex')

/** Returns the state in which nobody has the lease, to be written over one that `state` was written as. */
export const freed = ({ claim, beat, newest }: LeaseState, over: string | undefined): LeaseState => ({
  claim,
  beat: beat + 1,
  newest,
  over
})

/** Returns whether the leaf says that somebody has the lease, or wants it. */
export const isBusy = ({ deleted, operation }: LeaseLeaf): boolean => !deleted && operation !== undefined

export function holderOf({ operation, id, instance, backups }: LeaseLeaf): LeaseHolder {
  return {
    operation: operation as OperationKind,
    id: String(id),
    instance: String(instance),
    ...(backups === undefined ? undefined : { backups })
  }
}

/** Takes the members of a leaf that have the right type: others could have been written by hand. */
function leafOf({ rev, deleted, doc }: Leaf): LeaseLeaf {
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  const known = Object.hasOwn(OPERATIONS, text(doc.operation) ?? '') && ID.test(text(doc.id) ?? '')
  return {
    rev,
    deleted,
    operation: known ? (doc.operation as OperationKind) : undefined,
    id: text(doc.id),
    instance: text(doc.instance),
    backups: text(doc.backups),
    // Earlier versions named no claim, and a beat of theirs is a text.
    claim: text(doc.claim) ?? `${text(doc.instance)}:${text(doc.id)}:${text(doc.beat)}`,
    beat: typeof doc.beat === 'number' ? doc.beat : 0,
    settled: doc.settled !== false,
    ttl: typeof doc.ttl === 'number' ? doc.ttl : undefined,
    over: text(doc.over),
    after: text(doc.after),
    newest: /^[0-9]{1,20}$/.test(text(doc.newest) ?? '') ? text(doc.newest) : undefined,
    notify: Array.isArray(doc.notify) ? doc.notify.filter((id) => typeof id === 'string') : []
  }
}
