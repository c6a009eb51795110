import { setTimeout as sleep } from 'node:timers/promises'
import type { Static, TSchema } from '@sinclair/typebox'
import { LinkedAbort } from '../waits/linked-abort.js'
import { type Checkpoint, Checkpoints, ShardChanges, ShardInfo, Shards } from './answers.js'
import { type CouchDatabase, type DatabaseInfo, isReplicated } from './database.js'
import { CouchError, isCouchError } from './errors.js'
import { type NodesUp, nodeNames, nodesUp, noneStarted } from './nodes.js'
import type { RetryPolicy } from './retry.js'

/** Milliseconds to wait for replicas that lag. */
const LONGEST_WAIT = 30_000
/** Milliseconds between two looks at the replicas: the first and the longest. */
const PAUSE = { first: 50, longest: 1000 }
/** How nodes are asked again after a fault that may pass. Only a server administrator is told anything. */
const RETRY: RetryPolicy = { attempts: 5, unauthorized: 1, wait: 1000, longest: 1000 }
/** How often replicas are brought to one state again, after nodes were started while they were read. */
const SETTLED_AGAIN = 3
/** The documents by which nodes note how far they have brought another replica. */
const CHECKPOINTS = { startkey: '"_local/shard-sync-"', endkey: '"_local/shard-sync-~"' }

/**
 * Tells how the replicas of a database's shards are. `agree`: each has what any had when it was asked.
 * `behind`: some still do not. `unchecked`: the credentials are not a server administrator's, or the server
 * does not tell.
 */
export type ReplicasState = 'agree' | 'behind' | 'unchecked'

interface Replica {
  node: string
  /** The shard's name on its nodes. */
  shard: string
}

/** A replica's state when it was first asked. */
interface ReplicaState extends Replica {
  uuid: string
  /** Its last change. */
  seq: number
}

/**
 * Brings the replicas of a database to one state, in at most {@link LONGEST_WAIT}: a read may be answered by
 * one that was down and lags.
 * @throws what ends the client's signal; failures of the database are left to the reads that follow
 */
export async function settleReplicas(
  db: CouchDatabase,
  info: DatabaseInfo,
  longestWait = LONGEST_WAIT
): Promise<ReplicasState> {
  if (!isReplicated(info)) return 'agree'
  const { signal } = db.client.settings
  const ending = new LinkedAbort().follow(signal).after(longestWait, () => new Error('replicas lag'))
  // With many shards, `_sync_shards` takes seconds. The signal ends whatever hangs.
  const client = db.client.with({ retry: RETRY, control: longestWait + 1000, signal: ending.signal })
  const replicas = new Replicas(db.on(client.once), info)
  try {
    await client.retry(() => replicas.settle().catch(endAtOddAnswer))
    return 'agree'
  } catch (error) {
    signal?.throwIfAborted()
    if (ending.signal.aborted) return 'behind'
    if (isCouchError(error)) return 'unchecked'
    throw error
  } finally {
    ending.release()
  }
}

/**
 * Keeps the replicas of a database in one state while it is read. A node that starts meanwhile lags, and may answer
 * in place of one that has gone down.
 */
export class ReplicasWatch {
  readonly #db: CouchDatabase
  readonly #info: DatabaseInfo
  #nodes: NodesUp | null = null
  #again = 0
  #state: ReplicasState = 'agree'

  constructor(db: CouchDatabase, info: DatabaseInfo) {
    this.#db = db
    this.#info = info
  }

  get state(): ReplicasState {
    return this.#state
  }

  /** Brings the replicas to one state. @throws what {@link settleReplicas} throws */
  async settle(): Promise<void> {
    if (!isReplicated(this.#info)) return
    this.#nodes = await nodesUp(this.#db.client)
    this.#state = await settleReplicas(this.#db, this.#info)
  }

  /** Returns whether a node was started since the replicas were settled, or may have been. */
  async nodeStarted(): Promise<boolean> {
    return isReplicated(this.#info) && !noneStarted(this.#nodes, await nodesUp(this.#db.client))
  }

  /**
   * Settles the replicas again if a node was started since they agreed.
   * @returns whether what was read before may lack what replicas have now
   */
  async settledAgain(): Promise<boolean> {
    if (this.#state !== 'agree' || !(await this.nodeStarted())) return false
    if (this.#again++ < SETTLED_AGAIN) await this.settle()
    else this.#state = 'unchecked'
    return this.#state !== 'unchecked'
  }
}

class Replicas {
  readonly #db: CouchDatabase
  readonly #created: string | undefined

  constructor(db: CouchDatabase, { instance_start_time: created }: DatabaseInfo) {
    this.#db = db
    this.#created = created
  }

  async settle(): Promise<void> {
    const { client, name } = this.#db
    await client.send({ method: 'POST', path: [name, '_sync_shards'], json: {} })
    for (const replicas of await this.#shards()) await this.#settleShard(replicas)
  }

  /** Returns the replicas of each shard on nodes that are up. */
  async #shards(): Promise<Replica[][]> {
    const { client, name } = this.#db
    const { shards } = await client.json({ path: [name, '_shards'] }, Shards)
    const up = await nodeNames(client)
    return Object.entries(shards).map(([range, nodes]) =>
      nodes
        .filter((node) => up.includes(node))
        .map((node) => ({ node, shard: `shards/${range}/${name}.${this.#created}` }))
    )
  }

  async #settleShard(replicas: readonly Replica[]): Promise<void> {
    if (replicas.length < 2) return
    const states = await Promise.all(replicas.map((replica) => this.#stateOf(replica)))
    for (let pause = PAUSE.first; ; pause = Math.min(2 * pause, PAUSE.longest)) {
      const agree = await Promise.all(states.map((target) => this.#holdsAll(target, states)))
      if (!agree.includes(false)) return
      await sleep(pause, undefined, { signal: this.#db.client.settings.signal })
    }
  }

  async #stateOf(replica: Replica): Promise<ReplicaState> {
    const { uuid } = await this.#ask(replica, ShardInfo)
    // Not `update_seq`: a purge moves it on, and no replica has anything to be told then.
    const query = { descending: true, limit: 1 }
    const { results } = await this.#ask(replica, ShardChanges, '_changes', query)
    return { ...replica, uuid, seq: results[0]?.seq ?? 0 }
  }

  /** Returns whether a replica has what the others had when they were asked first. */
  async #holdsAll(target: ReplicaState, sources: readonly ReplicaState[]): Promise<boolean> {
    const checkpoints = await this.#checkpoints(target)
    return sources.every(
      (source) =>
        source === target ||
        source.seq === 0 ||
        checkpoints.some(
          (one) =>
            one.target_uuid === target.uuid && one.source_uuid === source.uuid && one.source_seq >= source.seq
        )
    )
  }

  async #checkpoints(replica: Replica): Promise<Static<typeof Checkpoint>[]> {
    const query = { include_docs: true, ...CHECKPOINTS }
    const { rows } = await this.#ask(replica, Checkpoints, '_local_docs', query)
    return rows.flatMap(({ doc }) => Object.values(doc?.history ?? {}).flat())
  }

  #ask<S extends TSchema>({ node, shard }: Replica, schema: S, what: string[] | string = [], query = {}) {
    return this.#db.client.json({ path: ['_node', node, shard, what].flat(), query }, schema)
  }
}

/** Makes an answer of another shape final: some servers do not tell of their replicas. */
function endAtOddAnswer(error: unknown): never {
  if (!(error instanceof CouchError) || error.error !== 'bad_answer') throw error
  throw new CouchError('replicas', { error: error.error, reason: error.reason, cause: error })
}
