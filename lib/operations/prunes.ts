import type { KeptBackup, PruneDecision, PruneOptions, PruneOutcome } from '../../types/backups.js'
import type { DatabaseNames } from '../../types/databases.js'
import { databaseOfKey, LOGICAL_DATABASES } from '../databases.js'
import {
  BackupNotFoundError,
  BackupProtectedError,
  ClockAheadError,
  ClockLeapError,
  InvalidParameterError,
  UnknownLayoutError
} from '../errors.js'
import { type LoadedBackup, REASONS } from '../repository/loaded-backup.js'
import type { Owner } from '../repository/owner.js'
import type { Removal } from '../repository/removal.js'
import type { Repository } from '../repository/repository.js'
import { checkKeep } from '../retention/check-keep.js'
import {
  byId,
  decide,
  type KeepCandidate,
  type KeepDecision,
  type KeepOptions
} from '../retention/keep-rules.js'
import { type Foresight, keptUntil } from '../retention/kept-until.js'
import { inTurns } from '../waits/steps.js'
import type { ActiveOperation } from './active-operations.js'
import type { Databases } from './databases.js'
import { type NewOperation, newOperationId, type OperationRecords } from './lifecycle.js'

/** Milliseconds after which a backup of athena's that is marked as being made is one that its server has left. */
const LONGEST_OF_ATHENA = 24 * 3_600_000

/** How often a removal that was interrupted is tried to be completed: once every `timeouts.lease`. */
const COMPLETIONS = 10

/** A backup that may be removed, unless it is of other databases. */
interface Candidate extends KeepCandidate {
  /** The other console that has made it, for people. */
  origin?: string
}

/** A request to remove backups. */
export interface PruneRequest {
  /** The time that the decision depends on, in milliseconds since the epoch. Absent where it depends on none. */
  now?: number
  decide(candidates: readonly Candidate[]): readonly KeepDecision[]
  /** Tells when backups that stay will go, where that is known. */
  foresee?(candidates: readonly Candidate[]): Promise<Foresight>
  orphans: boolean
}

/** Asks for nothing but the completion of earlier removals. */
const COMPLETION: PruneRequest = { decide: () => [], orphans: false }

/** Backups that are removed, by their ids, and why. */
type Removed = Map<string, readonly string[]>

/** A removal whose backups are chosen, and nothing of which is written yet. */
interface Prepared {
  removal: Removal
  candidates: readonly Candidate[]
  kept: PruneDecision[]
  removed: PruneDecision[]
  /** The removed backups, those of interrupted removals included once this one has run. */
  done: Removed
}

/** Describes removals of backups that are to run. They leave no record: headers are marked one by one. */
export class Prunes implements OperationRecords {
  readonly #databases: Databases
  /** The last removal that this instance began. */
  #own: string | undefined
  /** Number of further attempts to complete a removal that has failed, here or where an instance died. */
  #due = 0
  /** Removed backups that no outcome has told yet: removals that fail leave them to the next. */
  readonly #untold: Removed = new Map()

  constructor(databases: Databases) {
    this.#databases = databases
  }

  /** Describes a removal. Refusals come before the operation begins. */
  describe(request: PruneRequest): NewOperation<PruneOutcome, Prepared> {
    const id = newOperationId('prune')
    return {
      kind: 'prune',
      idAfter: () => ({ id }),
      prepare: ({ workClient }) => {
        this.#own = id
        if (request === COMPLETION) this.#due--
        return this.#prepare(this.#databases.repository.on(workClient), request, false)
      },
      work: async (_operation, prepared) => {
        const outcome = await carryOut(prepared, false).catch((error) => {
          if (request !== COMPLETION) this.#due = COMPLETIONS
          throw error
        })
        this.#due = 0
        this.#untold.clear()
        return outcome
      },
      started: () => ({ type: 'prune_started', id }),
      finished: (_id, ended, outcome) => ({ type: 'prune_finished', id, ...ended, outcome }),
      failed: (_id, ended, error) => ({ type: 'prune_failed', id, ...ended, error })
    }
  }

  /** Tells what a removal would do. It takes no lease, since it writes nothing: headers are as they are read. */
  async preview(request: PruneRequest): Promise<PruneOutcome> {
    const prepared = await this.#prepare(this.#databases.repository, request, true)
    const outcome = await carryOut(prepared, true)
    const foresight = await request.foresee?.(prepared.candidates)
    return foresight ? { ...outcome, ...told(outcome.kept, foresight) } : outcome
  }

  /** Describes the completion of a removal that was interrupted; `undefined` when none is known. */
  completion(): NewOperation<PruneOutcome, Prepared> | undefined {
    return this.#due > 0 ? this.describe(COMPLETION) : undefined
  }

  onFailed({ id }: ActiveOperation): void {
    // It is not known how far an instance that died has come.
    if (id !== this.#own) this.#due = COMPLETIONS
  }

  /** @throws ClockAheadError, what `request.decide` throws, and what the preparation of a {@link Removal} does */
  async #prepare(repository: Repository, request: PruneRequest, dryRun: boolean): Promise<Prepared> {
    const owner = await this.#databases.owner()
    const replicas = await repository.settle()
    // There is nothing to remove without a database.
    if (replicas && request.now !== undefined) await refuseIfAhead(request.now, repository)
    const candidates = await candidatesIn(repository, { names: this.#databases.names, owner }, !dryRun)
    const decisions = request.decide(candidates)
    const [kept, removed] = [true, false].map((keep) =>
      decisions.filter((one) => one.keep === keep).map(({ id, reasons }) => ({ id, reasons }))
    )
    const ids = new Map(removed.map(({ id, reasons }) => [id, reasons]))
    const remaining = new Set(candidates.map(({ id }) => id).filter((id) => !ids.has(id)))
    const { orphans } = request
    const done: Removed = dryRun ? new Map(this.#untold) : this.#untold
    const onRemoved = (id: string, reasons: readonly string[]) => void done.set(id, reasons)
    const removal = repository.removal({ ids, remaining, owner, dryRun, orphans, onRemoved, replicas })
    await removal.prepare()
    return { removal, candidates, kept, removed, done }
  }
}

/** Milliseconds by which clocks that are set by the network never differ. */
const MOST_AHEAD = 5 * 60_000

/**
 * Makes sure that a time has come, by the clock of the server: to a host that is ahead, good backups look old.
 * @throws ClockAheadError
 */
async function refuseIfAhead(now: number, repository: Repository): Promise<void> {
  // `now` is from before the answer, so its delay makes no clock look ahead.
  const ahead = now - (await repository.serverTime())
  if (ahead > MOST_AHEAD) throw new ClockAheadError(Math.round(ahead / 60_000))
}

async function carryOut({ removal, kept, removed, done }: Prepared, dryRun: boolean): Promise<PruneOutcome> {
  const { deleted, orphans } = await removal.run()
  for (const { id } of removed) done.delete(id)
  const earlier = [...done].map(([id, reasons]) => ({ id, reasons: [...reasons] })).sort(byId)
  return {
    dryRun,
    kept,
    removed: [...earlier, ...removed],
    freed_bytes: deleted.bytes,
    parts: deleted.parts,
    orphans
  }
}

const told = (kept: readonly KeptBackup[], { goes, foreseen }: Foresight) => ({
  kept: kept.map((one) => {
    const until = goes.get(one.id)
    return until === undefined ? one : { ...one, until }
  }),
  foreseen
})

/** Returns a request to remove one backup, which somebody has named. */
export const removalOf = (id: string): PruneRequest => ({
  decide(candidates) {
    const named = candidates.find((candidate) => candidate.id === id)
    if (!named) throw new BackupNotFoundError(id)
    const reason = whyKept(named, candidates)
    if (reason !== undefined) throw new BackupProtectedError(id, reason)
    return [{ id, keep: false, reasons: ['named'] }]
  },
  orphans: false
})

/**
 * Returns a request to remove what no rule keeps.
 * @param now milliseconds since the epoch
 * @param comingRuns returns when backups are made from `now` on, given when the newest good one began
 * @throws InvalidParameterError when there is no rule, or a wrong one
 */
export function pruningBy(
  options: PruneOptions,
  defaults: Pick<Required<PruneOptions>, 'keepFailed'> & Pick<PruneOptions, 'keep'>,
  now: number,
  comingRuns?: ComingRuns
): PruneRequest {
  const { keep = defaults.keep, keepFailed = defaults.keepFailed, legacy = false, orphans = false } = options
  if (keep === undefined)
    throw new InvalidParameterError('options/keep is missing, and the option keep of the plugin as well')
  checkKeep(keep)
  const rules: KeepOptions = { keep, keepFailed, legacy, now }
  return {
    now,
    decide: (candidates) => decide(ownOf(candidates), rules),
    ...(comingRuns && { foresee: (candidates) => foresee(ownOf(candidates), rules, comingRuns) }),
    orphans
  }
}

/** Milliseconds between two backups that no clock has to explain, however often they are made. */
const LEAST_LEAP = 3 * 24 * 3_600_000
/** How many times longer than usual the last wait between two backups may be. */
const LEAP = 3

/**
 * Adds the check of a pruning that no operator looks at: it is refused when the last two good backups lie further
 * apart than they should, since a clock that was set far ahead makes all others look old. @throws ClockLeapError
 * @param gap usual milliseconds between two backups @param now milliseconds since the epoch
 */
export const unattended = (
  { decide, ...request }: PruneRequest,
  { gap, now }: { gap: number; now: number }
): PruneRequest => ({
  ...request,
  decide(candidates) {
    const good = ownOf(candidates).filter(({ at, state, legacy }) => state === 'good' && !legacy && at <= now)
    const [newest, previous] = good.toSorted((a, b) => b.at - a.at)
    const most = Math.max(LEAST_LEAP, LEAP * gap)
    if (previous && newest.at - previous.at > most) throw new ClockLeapError(newest.id, previous.id)
    return decide(candidates)
  }
})

type ComingRuns = (now: number, newest: number | undefined) => Iterable<number>

function foresee(own: readonly Candidate[], rules: KeepOptions, comingRuns: ComingRuns): Promise<Foresight> {
  const { now } = rules
  const begun = own.filter(({ state, at }) => state !== 'failed' && at <= now).map(({ at }) => at)
  const newest = begun.length > 0 ? Math.max(...begun) : undefined
  return inTurns(keptUntil(own, rules, comingRuns(now, newest)))
}

const ownOf = (candidates: readonly Candidate[]): readonly Candidate[] =>
  candidates.filter(({ origin }) => origin === undefined)

/** Returns why a backup must not be removed, even if somebody names it. */
function whyKept(named: Candidate, all: readonly Candidate[]): string | undefined {
  const { origin, state } = named
  if (origin !== undefined) return `it is of ${origin}`
  if (state === 'running') return REASONS.running
  const good = all.filter((one) => one.state === 'good' && one.origin === undefined)
  const isNewest =
    state === 'good' &&
    (good.every(({ at }) => at <= named.at) || good.every((other) => byId(other, named) <= 0))
  return isNewest ? 'it is the newest good backup' : undefined
}

interface OwnConsole {
  names: DatabaseNames
  owner: Owner
}

/**
 * Reads all headers, oldest first. Under the lease, none of this console's is being made.
 * @throws UnknownLayoutError, DamagedBackupError, CouchError
 */
async function candidatesIn(
  repository: Repository,
  own: OwnConsole,
  underLease: boolean
): Promise<Candidate[]> {
  const candidates: Candidate[] = []
  await repository.each((backup) => {
    if (backup.isLater) throw new UnknownLayoutError(backup.id)
    candidates.push(candidateOf(backup, own, underLease))
  })
  return candidates.sort((a, b) => a.at - b.at)
}

function candidateOf(backup: LoadedBackup, { names, owner }: OwnConsole, underLease: boolean): Candidate {
  const isOwn = backup.isOf(owner)
  const { id, beganAt, endedAt, damagedSince, isLegacy, header } = backup
  return {
    id,
    at: beganAt,
    state: candidateState(backup, names, underLease && isOwn),
    endedAt: damagedSince ?? endedAt,
    protected: header.protected === true,
    legacy: isLegacy,
    ...(!isOwn && { origin: backup.origin })
  }
}

/** @param alone whether no backup of these databases is being made, but for athena's, which take no lease */
function candidateState(backup: LoadedBackup, names: DatabaseNames, alone: boolean): Candidate['state'] {
  const { state, isLegacy } = backup
  if (state === 'running') {
    const isLeft = isLegacy ? backup.age > LONGEST_OF_ATHENA : alone
    return isLeft ? 'failed' : 'running'
  }
  return state === 'unreadable' || (isLegacy && !holdsAll(backup, names)) ? 'failed' : state
}

/** Returns whether a backup of athena's holds all databases: those that it could not read are left out. */
function holdsAll({ header }: LoadedBackup, names: DatabaseNames): boolean {
  const held = new Set(Object.keys(header.dbs).map((key) => databaseOfKey(key, names)))
  return LOGICAL_DATABASES.every((database) => held.has(database))
}
