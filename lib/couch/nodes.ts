import type { CouchClient } from './client.js'
import { CouchError } from './errors.js'

/** Seconds that a node's uptime, asked twice, may differ from the time between. */
const TOLERANCE = 5

/** The nodes of a cluster that are up: seconds since each was started, by its name. */
export interface NodesUp {
  uptimes: Record<string, number>
  /** When they were asked, in seconds on the monotonic clock. */
  askedAt: number
}

/**
 * Returns the names of the nodes that are up.
 * @throws CouchError also when the server tells something else
 */
export async function nodeNames(client: CouchClient): Promise<string[]> {
  const { all_nodes: names } = await client.json<{ all_nodes?: string[] }>({ path: ['_membership'] })
  if (!Array.isArray(names))
    throw new CouchError('_membership', { error: 'bad_answer', reason: 'the server does not tell its nodes' })
  return names
}

/** Asks which nodes are up; `null` when the server does not tell. */
export async function nodesUp(asked: CouchClient): Promise<NodesUp | null> {
  const client = asked.once
  const askedAt = performance.now() / 1000
  try {
    const names = await nodeNames(client)
    const systems = names.map((name) => client.json<{ uptime: number }>({ path: ['_node', name, '_system'] }))
    const uptimes = (await Promise.all(systems)).map(({ uptime }) => uptime)
    return { uptimes: Object.fromEntries(names.map((name, i) => [name, uptimes[i]])), askedAt }
  } catch (error) {
    if (error instanceof CouchError) return null
    throw error
  }
}

/**
 * Tells whether any node knows a database. One that was down when the database was created says that there is none until
 * another node has told it. Where the credentials or the server do not let nodes be asked, none is known to.
 */
export async function anyNodeKnows(asked: CouchClient, database: string): Promise<boolean> {
  const client = asked.once
  try {
    const names = await nodeNames(client)
    if (names.length < 2) return false
    const answers = await Promise.all(names.map((name) => knows(client, name, database)))
    return answers.includes(true)
  } catch (error) {
    if (error instanceof CouchError) return false
    throw error
  }
}

/** Returns whether one node is known to list a database. */
async function knows(client: CouchClient, node: string, database: string): Promise<boolean> {
  try {
    await client.json({ path: ['_node', node, '_dbs', database] })
    return true
  } catch (error) {
    if (error instanceof CouchError) return false
    throw error
  }
}

/** Returns whether no node has been started between two answers. One that went down meanwhile answers nothing, old or new. */
export function noneStarted(before: NodesUp | null, after: NodesUp | null): boolean {
  if (!before || !after) return false
  const elapsed = after.askedAt - before.askedAt
  return Object.entries(after.uptimes).every(
    ([name, uptime]) => Math.abs(uptime - (before.uptimes[name] ?? Number.NaN) - elapsed) <= TOLERANCE
  )
}
