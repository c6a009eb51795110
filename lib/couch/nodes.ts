import { Membership, System } from './answers.js'
import type { CouchClient } from './client.js'
import { expected, isCouchError } from './errors.js'

/** Seconds that a node's uptime, asked twice, may differ from the time between. */
const TOLERANCE = 5

/** The nodes of a cluster that are up: seconds since each was started, by its name. */
export interface NodesUp {
  uptimes: Record<string, number>
  /** When they were asked, in seconds on the monotonic clock. */
  askedAt: number
}

/** Returns the names of the nodes that are up. @throws CouchError also for an unexpected answer */
export async function nodeNames(client: CouchClient): Promise<string[]> {
  return (await client.json({ path: ['_membership'] }, Membership)).all_nodes
}

/** Asks which nodes are up; `null` when the server does not tell. */
export async function nodesUp(asked: CouchClient): Promise<NodesUp | null> {
  const client = asked.once
  const askedAt = performance.now() / 1000
  const uptimeOf = async (node: string): Promise<[string, number]> => {
    const { uptime } = await client.json({ path: ['_node', node, '_system'] }, System)
    return [node, uptime]
  }
  const uptimes = nodeNames(client).then((names) => Promise.all(names.map(uptimeOf)))
  return uptimes
    .then((entries) => ({ uptimes: Object.fromEntries(entries), askedAt }))
    .catch(expected(isCouchError, null))
}

/** Returns whether any node knows a database (one that was down may not); `false` if none can be asked. */
export async function anyNodeKnows(asked: CouchClient, database: string): Promise<boolean> {
  const client = asked.once
  const knows = (node: string): Promise<boolean> =>
    client.send({ path: ['_node', node, '_dbs', database] }).then(() => true, expected(isCouchError, false))
  const names = await nodeNames(client).catch(expected(isCouchError, []))
  return names.length > 1 && (await Promise.all(names.map(knows))).includes(true)
}

/** Returns whether no node was started between two answers. One that went down meanwhile answers nothing. */
export function noneStarted(before: NodesUp | null, after: NodesUp | null): boolean {
  if (!before || !after) return false
  const elapsed = after.askedAt - before.askedAt
  return Object.entries(after.uptimes).every(
    ([name, uptime]) => Math.abs(uptime - (before.uptimes[name] ?? Number.NaN) - elapsed) <= TOLERANCE
  )
}
