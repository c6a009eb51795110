import type { CouchDatabase, Revision } from '../couch/database.js'
import { CouchError, isChanged } from '../couch/errors.js'
import { ReplicasWatch } from '../couch/replicas.js'
import { BACKUP_TYPE, REMOVED_TYPE } from '../own-documents.js'
import { atATime } from '../waits/at-a-time.js'
import { makerOf } from './ids.js'
import { type Head, type HeaderDocument, LAYOUT, type Store } from './layout.js'
import { isOwnedBy, type Owner, originIn } from './owner.js'
import { allParts, deleteParts, ownParts, type StoredPart } from './part-documents.js'
import { readHeader } from './read-header.js'
import { headerRevisions, References } from './references.js'

/** Headers changed at a time. */
const CHANGED_AT_A_TIME = 8
/** Versions of a header that are deleted: conflicts of replications. */
const MOST_CONFLICTS = 100

/** Number and bytes of parts. */
export interface PartCount {
  parts: number
  bytes: number
}

interface Swept {
  /** The parts that were deleted, or would be. Bytes include appended attachments, and athena's documents. */
  deleted: PartCount
  /** Parts whose maker has no header at all: neither a backup nor a removed one. */
  orphans: PartCount
}

export interface RemovalOptions {
  /** Backups to be removed, and why. */
  ids: ReadonlyMap<string, readonly string[]>
  /** Ids of all other backups. */
  remaining: ReadonlySet<string>
  /** Others may keep backups here as well. */
  owner: Owner
  /** Count, and write nothing. */
  dryRun: boolean
  /** Delete orphans as well. */
  orphans: boolean
  /**
   * Called once for each backup that was removed, by this removal or an interrupted one, when its mark no longer holds
   * the reasons.
   */
  onRemoved(id: string, reasons: readonly string[]): void
  /** Replicas of the database, settled before the backups were listed. Absent without a database. */
  replicas?: ReplicasWatch | undefined
}

/** The mark in place of the header of a backup that was removed, or of which only parts were copied, while these may be there. */
export interface RemovedHeader {
  type: typeof REMOVED_TYPE
  storage: Pick<HeaderDocument['storage'], 'layout' | 'system' | 'console'>
  /** Why it was removed, until a removal that came to its end has told. */
  reasons?: readonly string[]
}

/** The state of the backup that made a part. Removed backups of other consoles are theirs to deal with. */
type MakerState = 'backup' | 'removed' | 'of another console' | 'none'

/**
 * Removes backups, in two steps: their headers are marked as removed, then what no other header lists is
 * deleted. The next removal completes an interrupted one. Run it under the lease, except for a dry run.
 */
export class Removal {
  readonly #store: Store
  readonly #options: RemovalOptions
  readonly #makers = new Map<string, MakerState>()
  readonly #deleted: PartCount = { parts: 0, bytes: 0 }
  readonly #orphans: PartCount = { parts: 0, bytes: 0 }
  /** Why backups were removed whose removal is still to be told. */
  readonly #untold = new Map<string, readonly string[]>()
  /** Removed backups whose parts others list. */
  readonly #inUse = new Set<string>()
  readonly #references: References

  constructor(store: Store, options: RemovalOptions) {
    this.#store = store
    this.#options = options
    // A complete backup lists all that it has made: it matters only who lists parts of others.
    this.#references = new References(store.db, (maker) => !options.remaining.has(maker))
    for (const id of options.remaining) this.#makers.set(id, 'backup')
  }

  /**
   * Reads what remains, and changes nothing.
   * @throws DamagedBackupError, UnknownLayoutError when a backup cannot be read whole: it may list any chunk
   * @throws CouchError when a list may not have shown every header
   */
  async prepare(): Promise<void> {
    await this.#references.update(this.#options.ids)
    await requireNoneStarted(this.#db, this.#options.replicas)
  }

  /** Removes the backups, and completes earlier removals. @throws CouchError when a list may lack something */
  async run(): Promise<Swept> {
    const { ids } = this.#options
    await atATime(CHANGED_AT_A_TIME, ids.keys(), (id) => this.#mark(id))
    // Removals of other consoles may have ended meanwhile.
    await this.#references.update(ids)
    await requireNoneStarted(this.#db, this.#options.replicas)
    for await (const parts of allParts(this.#db)) await this.#sweepParts(parts)
    await requireNoneStarted(this.#db, this.#options.replicas)
    await this.#settleMarks()
    return { deleted: this.#deleted, orphans: this.#orphans }
  }

  get #db(): CouchDatabase {
    return this.#store.db
  }

  /** Marks a backup as removed, or deletes one of athena's, which is one document. */
  async #mark(id: string): Promise<void> {
    const head = await this.#store.headerMutex.run(id, () => this.#markLatest(id))
    if (!head) return
    for (const { length, encoded_length = length } of Object.values(head._attachments ?? {}))
      this.#deleted.bytes += typeof encoded_length === 'number' ? encoded_length : 0
    this.#deleted.bytes += head.bytes
  }

  /** Tries again after conflicts with appends. @returns the header as it was; `null` when it was gone */
  async #markLatest(id: string): Promise<(Head & { bytes: number }) | null> {
    let latest: (Head & { bytes: number }) | null = null
    const mark = async () => {
      const head = await readHeader(this.#db, id)
      // Gone: somebody else was faster, or the answer to an earlier attempt was lost.
      if (!head) return latest
      latest = { ...head, bytes: head.storage === undefined ? ((await this.#db.size(id)) ?? 0) : 0 }
      if (!this.#options.dryRun) await this.#replace(head)
      this.#makers.set(id, 'removed')
      return latest
    }
    return this.#db.untilNoConflict(mark, isChanged)
  }

  /** Deletes what is in conflict with a header that was deleted, and comes to light without it. */
  async #deleteConflicts(id: string): Promise<void> {
    for (let i = 0; i < MOST_CONFLICTS; i++) {
      const head = await readHeader(this.#db, id)
      if (!head) return
      await this.#db.delete(id, head._rev)
    }
  }

  /** Puts the mark in place of a header: no list or get shows the backup, and its attachments go. */
  async #replace({ _id, _rev, storage }: Head): Promise<void> {
    const reasons = this.#options.ids.get(_id) ?? []
    this.#untold.set(_id, reasons)
    if (storage === undefined) {
      await this.#db.delete(_id, _rev)
      await this.#deleteConflicts(_id)
      return this.#tell(_id)
    }
    const marked = { layout: LAYOUT, ...originIn(storage, this.#options.owner.system) }
    await this.#db.put<RemovedHeader>({ _id, _rev, type: REMOVED_TYPE, storage: marked, reasons })
  }

  #tell(id: string): void {
    const reasons = this.#untold.get(id)
    if (reasons) this.#options.onRemoved(id, reasons)
    this.#untold.delete(id)
  }

  async #sweepParts(parts: readonly Revision[]): Promise<void> {
    const unlisted: Record<'removed' | 'none', Revision[]> = { removed: [], none: [] }
    for (const part of parts) {
      const maker = makerOf(part.id)
      if (maker === undefined) continue
      const state = await this.#stateOf(maker)
      if (state !== 'removed' && state !== 'none') continue
      if (this.#references.has(part.id)) this.#inUse.add(maker)
      else unlisted[state].push(part)
    }
    await this.#delete(await ownParts(this.#db, unlisted.removed))
    const orphans = await ownParts(this.#db, unlisted.none)
    count(this.#orphans, orphans)
    if (this.#options.orphans) await this.#delete(orphans)
  }

  /** Asks most replicas: a header that the list did not show has its parts nevertheless. */
  async #stateOf(maker: string): Promise<MakerState> {
    const known = this.#makers.get(maker)
    if (known) return known
    const state = await this.#readState(maker)
    this.#makers.set(maker, state)
    return state
  }

  async #readState(maker: string): Promise<MakerState> {
    const type = await this.#db.type(maker)
    if (type === BACKUP_TYPE) return 'backup'
    if (type !== REMOVED_TYPE) return 'none'
    const marked = await this.#db.get<RemovedHeader>(maker)
    if (!marked || !isOwnedBy(marked.storage ?? {}, this.#options.owner)) return 'of another console'
    if (Array.isArray(marked.reasons)) this.#untold.set(maker, marked.reasons.map(String))
    return 'removed'
  }

  async #delete(parts: readonly StoredPart[]): Promise<void> {
    if (!this.#options.dryRun) await deleteParts(this.#db, parts)
    count(this.#deleted, parts)
  }

  /** Takes the reasons out of all marks, and deletes the marks of backups of which no part is left. */
  async #settleMarks(): Promise<void> {
    await atATime(CHANGED_AT_A_TIME, await headerRevisions(this.#db), async (header) => {
      if ((await this.#stateOf(header.id)) !== 'removed') return
      if (!this.#options.dryRun) await this.#settleMark(header)
      this.#tell(header.id)
    })
  }

  async #settleMark(header: Revision): Promise<void> {
    const { id } = header
    if (!this.#inUse.has(id)) {
      await deleteParts(this.#db, [header])
      await this.#deleteConflicts(id)
    } else if (this.#untold.has(id)) {
      await this.#db.modify<RemovedHeader>(id, (mark) => mark && { ...mark, reasons: undefined })
    }
  }
}

function count(sum: PartCount, parts: readonly StoredPart[]): void {
  sum.parts += parts.length
  for (const { bytes } of parts) sum.bytes += bytes
}

const replicasBehind = ({ name }: CouchDatabase, reason: string) =>
  new CouchError(`replicas of ${name}`, { error: 'replicas_behind', reason, retryable: true })

/**
 * Makes sure that no replica has answered that was down, and lags: what it does not show would be nobody's.
 * @throws CouchError
 */
export async function requireNoneStarted(
  db: CouchDatabase,
  replicas: ReplicasWatch | undefined
): Promise<void> {
  if (!(await replicas?.nodeStarted())) return
  throw replicasBehind(
    db,
    'a node was started meanwhile, so a backup may not have been seen: the rest is removed later'
  )
}

/**
 * Makes sure that a list shows every header: on a cluster, a replica that lags would hide one, and its chunks
 * would be taken for nobody's. @throws CouchError
 */
export async function requireSettled(db: CouchDatabase): Promise<ReplicasWatch | undefined> {
  const info = await db.find()
  if (!info) return undefined
  const replicas = new ReplicasWatch(db, info)
  await replicas.settle()
  const { state } = replicas
  if (state === 'behind')
    throw replicasBehind(db, 'they do not agree yet, so a backup may not be seen: nothing was removed')
  if (state === 'unchecked')
    throw new CouchError(`replicas of ${db.name}`, {
      error: 'replicas_unchecked',
      reason: 'on a cluster, only a server administrator may ask whether they agree: nothing was removed'
    })
  return replicas
}
