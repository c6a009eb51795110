import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { WebhookTransaction } from '../../types/index.js'
import type { SentBackup } from './api.js'
import type { Cluster, ClusterNames } from './cluster.js'
import { DATABASES, LEASE } from './database.js'
import { type Fingerprints, fingerprintsOf } from './fingerprints.js'
import { txIdOf } from './host.js'
import { poll } from './poll.js'
import type { ServerProcess, ServerReply } from './server-process.js'

/** Milliseconds that an operation may take. */
export const END = 120_000

export interface Ended {
  /** When the operation ended. */
  at: number
  /** Why the operation failed. Absent when it succeeded. */
  error?: string
  transaction?: WebhookTransaction
}

/** An operation that was accepted. */
export interface Accepted {
  /** Id of the backup, or of the restore's transaction. */
  id: string
  /** When the 202 had arrived. */
  at: number
  /** Waits up to so many milliseconds for the end. */
  ended(patience: number): Promise<Ended>
}

/** Reads the 202 of a backup or a restore. */
export function accepted(cluster: Cluster, names: ClusterNames, { json }: ServerReply): Accepted {
  const at = Date.now()
  const id: string = json.id ?? txIdOf(json.url)
  const read = json.id ? () => backupEnd(cluster, names, id) : () => restoreEnd(cluster, names, id)
  return { id, at, ended: (patience) => poll(`the end of ${id}`, read, patience, 50) }
}

interface Header {
  in_progress: boolean
  end_timestamp?: number
  error?: string
}

async function backupEnd(cluster: Cluster, names: ClusterNames, id: string): Promise<Ended | undefined> {
  const header = await readNow<Header>(cluster, `${names.backups}/${id}`)
  if (!header || header.in_progress) return undefined
  return { at: header.end_timestamp ?? Date.now(), error: header.error }
}

async function restoreEnd(cluster: Cluster, names: ClusterNames, id: string): Promise<Ended | undefined> {
  const transaction = await readNow<WebhookTransaction>(cluster, `${names.system}/${id}`)
  if (!transaction || transaction.status === 'pending') return undefined
  const error = transaction.status === 'success' ? undefined : transaction.athena_messages.join('; ')
  return { at: transaction.ts_completed ?? Date.now(), error, transaction }
}

/** Reads through a node that is up, once. Returns `undefined` on failure. */
const readNow = <T>(cluster: Cluster, path: string): Promise<T | undefined> =>
  cluster.up[0]!.json<T>('GET', path).catch(() => undefined)

/** Sends a request as a client does that tries again until the server can serve it. */
export async function untilServed<T>(
  patience: number,
  ask: () => Promise<T | undefined>
): Promise<{ value: T; retries: number }> {
  let retries = -1
  const value = await poll(
    'a served request',
    () => {
      retries++
      return ask().catch(() => undefined)
    },
    patience,
    250
  )
  return { value, retries }
}

/**
 * Starts a backup or a restore. Tries again after a 502 or 503.
 * @throws when the server refuses
 */
export async function begin(
  cluster: Cluster,
  names: ClusterNames,
  patience: number,
  ask: () => Promise<ServerReply>
): Promise<Accepted & { retries: number }> {
  const { value, retries } = await untilServed(patience, async () => {
    const reply = await ask()
    return reply.status === 503 || reply.status === 502 ? undefined : reply
  })
  if (value.status !== 202) throw new Error(`${value.status} ${JSON.stringify(value.json)}`)
  return { ...accepted(cluster, names, value), retries }
}

/**
 * Makes a backup, and returns its id.
 * @throws when the backup fails
 */
export async function backup(
  cluster: Cluster,
  names: ClusterNames,
  server: ServerProcess,
  path: '' | '/full' = ''
): Promise<string> {
  const reply = await server.post(path)
  if (reply.status !== 202) throw new Error(`no backup: ${reply.status} ${JSON.stringify(reply.json)}`)
  const { error } = await accepted(cluster, names, reply).ended(END)
  if (error) throw new Error(`no backup: ${error}`)
  await leaseIsFree(cluster, names)
  return reply.json.id
}

/**
 * Downloads a backup at up to `bytesPerSecond`.
 * @throws when the reply is cut off or refused
 */
export async function download(
  server: ServerProcess,
  id: string,
  patience: number,
  bytesPerSecond = Number.POSITIVE_INFINITY
): Promise<Buffer> {
  const signal = AbortSignal.timeout(patience)
  const reply = await fetch(`${server.origin}/api/v3/backups/${id}`, { signal })
  if (!reply.ok || !reply.body) throw new Error(`GET: ${reply.status} ${await reply.text()}`)
  const pieces: Uint8Array[] = []
  for await (const piece of reply.body) {
    pieces.push(piece)
    await delay((piece.length / bytesPerSecond) * 1000)
  }
  return Buffer.concat(pieces)
}

/** Returns the SHA-256 of bytes, in hex. */
export const digestOf = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

/** Returns what a downloaded backup holds of each source database. */
export function contentsOf(bytes: Buffer): Fingerprints[] {
  const { dbs } = JSON.parse(bytes.toString()) as SentBackup
  return DATABASES.map((logical) => fingerprintsOf(dbs[`athena_${logical}`]?.docs ?? []))
}

/** Waits until no lease names an operation, and returns whether that happened in time. */
export async function leaseIsFree(
  cluster: Cluster,
  names: ClusterNames,
  patience = 10_000
): Promise<boolean> {
  return poll('a free lease', () => noHolder(cluster, names), patience, 20).catch(() => false)
}

async function noHolder(cluster: Cluster, names: ClusterNames): Promise<true | undefined> {
  const leases = await Promise.all(Object.values(names).map((database) => leasesIn(cluster, database)))
  return leases.flat().every((lease) => lease?.operation === undefined) ? true : undefined
}

async function leasesIn(cluster: Cluster, database: string): Promise<({ operation?: string } | undefined)[]> {
  const { rows } = await cluster.up[0]!.read<{ rows: { doc?: { operation?: string } }[] }>(
    `${database}/_all_docs?include_docs=true&key="${LEASE}"`
  )
  return rows.map(({ doc }) => doc)
}

interface Rounds<Kind> {
  cluster: Cluster
  names: ClusterNames
  rounds: number
  kinds: Record<string, Kind>
  play: (kind: Kind, number: number) => Promise<void>
  /** What went wrong, which `play` adds to. Each problem gets the name of its round. */
  problems: string[]
}

/**
 * Plays rounds of all kinds in turn. After each round all nodes are up and the lease is free.
 * @returns the number of rounds that failed
 */
export async function playRounds<Kind>(options: Rounds<Kind>): Promise<number> {
  const { cluster, names, rounds, kinds, play, problems } = options
  const all = Object.entries(kinds)
  let failed = 0
  for (let number = 0; number < rounds; number++) {
    const [name, kind] = all[number % all.length]!
    const before = problems.length
    await play(kind, number).catch(({ message }: Error) => {
      failed++
      problems.push(message)
    })
    await cluster.allUp()
    await leaseIsFree(cluster, names, END)
    const noted = problems.splice(before)
    problems.push(...noted.map((problem) => `round ${number}, ${name}: ${problem}`))
    console.error(`round ${number}, ${name}: ${noted.join('; ') || 'right'}`)
  }
  return failed
}
