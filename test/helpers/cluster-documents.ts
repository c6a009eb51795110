import type { Cluster, ClusterNames, ClusterNode } from './cluster.js'
import { DATABASES, type FetchedDocument } from './database.js'
import { difference, type Fingerprints, fingerprintsOf } from './fingerprints.js'
import { poll } from './poll.js'
import { bytesOf, seedDocuments } from './seed.js'

const PAGE = 200
/** Milliseconds that the replicas of a shard may take to merge. */
export const MERGE = 30_000

interface Result {
  id: string
  rev?: string
  ok?: true
  /** Set when less than a majority of the replicas has taken the write. */
  accepted?: true
}

/**
 * Writes documents through one node.
 * @returns the revisions of those that a majority of the replicas has taken
 */
export async function write(
  node: ClusterNode,
  database: string,
  docs: readonly object[]
): Promise<Map<string, string>> {
  const taken = new Map<string, string>()
  for (let from = 0; from < docs.length; from += PAGE) {
    const results = await node.json<Result[]>('POST', `${database}/_bulk_docs`, {
      docs: docs.slice(from, from + PAGE)
    })
    for (const { id, rev, ok, accepted } of results) if (ok && rev && !accepted) taken.set(id, rev)
  }
  return taken
}

/**
 * Writes documents through one node.
 * @throws unless a majority of the replicas has taken all of them
 */
async function seed(node: ClusterNode, database: string, docs: readonly object[]): Promise<void> {
  const { size } = await write(node, database, docs)
  if (size !== docs.length) throw new Error(`${docs.length - size} documents of ${database} were not taken`)
}

/** Fills the source databases like those of a small console. */
export async function seedSmall(node: ClusterNode, names: ClusterNames, components = 30): Promise<void> {
  const docs = seedDocuments({ count: components, prefix: 'component', attachmentEvery: 10 })
  await seed(node, names.components, [...docs])
  await seed(node, names.sessions, [...seedDocuments({ count: 5, prefix: 'user', size: 300 })])
  await seed(node, names.system, [...seedDocuments({ count: 10, prefix: 'setting', size: 500 })])
}

/** Adds a document with one large attachment. */
export async function seedLarge(node: ClusterNode, database: string, bytes: number): Promise<void> {
  const data = bytesOf('large attachment', bytes).toString('base64')
  const file = { content_type: 'application/octet-stream', data }
  await seed(node, database, [{ _id: 'large', type: 'file', _attachments: { 'file.bin': file } }])
}

/** Reads the documents of a database through one node, whose replicas may lag. */
async function readAll(node: ClusterNode, database: string): Promise<FetchedDocument[]> {
  const documents: FetchedDocument[] = []
  for (let from = ''; ; ) {
    const { rows } = await node.read<{ rows: { id: string; doc: FetchedDocument }[] }>(
      `${database}/_all_docs?include_docs=true&attachments=true&limit=${PAGE}${from}`
    )
    documents.push(...rows.map(({ doc }) => doc))
    if (rows.length < PAGE) return documents
    from = `&skip=1&startkey=${encodeURIComponent(JSON.stringify(rows.at(-1)!.id))}`
  }
}

/** Reads the source databases through one node, and returns their fingerprints. */
export async function readSources(node: ClusterNode, names: ClusterNames): Promise<Fingerprints[]> {
  const all: Fingerprints[] = []
  for (const logical of DATABASES) all.push(fingerprintsOf(await readAll(node, names[logical])))
  return all
}

/** Compares the source databases once their replicas have merged. Empty when they hold what they should. */
export async function sourcesDiffer(
  node: ClusterNode,
  names: ClusterNames,
  expected: readonly Fingerprints[]
): Promise<string> {
  let problem = ''
  const equal = async () => {
    const found = await readSources(node, names)
    problem = found
      .map((prints, i) => difference(expected[i]!, prints))
      .filter(Boolean)
      .join('; ')
    return problem === '' ? true : undefined
  }
  await poll('equal databases', equal, MERGE, 1000).catch(() => undefined)
  return problem
}

/** Returns the newest revisions of documents that a majority of their replicas has. Deleted documents are left out. */
export async function newest(
  node: ClusterNode,
  database: string,
  ids: readonly string[]
): Promise<Map<string, string>> {
  const body = { docs: ids.map((id) => ({ id })) }
  const { results } = await node.json<{
    results: { id: string; docs: { ok?: { _rev: string; _deleted?: true } }[] }[]
  }>('POST', `${database}/_bulk_get`, body)
  const found = new Map<string, string>()
  for (const { id, docs } of results)
    for (const { ok } of docs) if (ok && !ok._deleted) found.set(id, ok._rev)
  return found
}

type Leaf = { ok?: { _rev: string; _deleted?: true } }

/** Returns how many live leaves beyond the first the documents of these databases have, on the node with the most. */
export async function conflicts(cluster: Cluster, databases: readonly string[]): Promise<number> {
  let most = 0
  for (const node of cluster.nodes) {
    let count = 0
    for (const database of new Set(databases)) count += await conflictsOn(node, database)
    most = Math.max(most, count)
  }
  return most
}

async function conflictsOn(node: ClusterNode, database: string): Promise<number> {
  const { results } = await node.read<{ results: { id: string; changes: unknown[] }[] }>(
    `${database}/_changes?style=all_docs`
  )
  let count = 0
  for (const { id, changes } of results)
    if (changes.length > 1) count += await liveBeyondOne(node, database, id)
  return count
}

async function liveBeyondOne(node: ClusterNode, database: string, id: string): Promise<number> {
  const leaves = await node.read<Leaf[]>(`${database}/${encodeURIComponent(id)}?open_revs=all`)
  return Math.max(0, leaves.filter(({ ok }) => ok && !ok._deleted).length - 1)
}
