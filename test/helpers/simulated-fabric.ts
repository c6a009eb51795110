import {
  byWinner,
  type Call,
  HttpError,
  type RawDatabase,
  type RawDocument,
  type RawRevision,
  type Reply,
  route,
  withLeaf
} from './raw-couch.js'
import type { Replica } from './simulated-replicas.js'

/** Carries requests to the replicas of a simulated cluster. */
export interface Messenger {
  /**
   * Lets every replica that is up do `work`, each after a delay of its own. Calls `decide` after each answer, with the
   * number of answers still to come, and resolves with the first value that it returns. The other replicas do their work
   * as well.
   */
  ask<T, A>(
    work: (replica: Replica) => T,
    decide: (answers: readonly T[], waiting: number) => A | undefined
  ): Promise<A>
  /** Tells that a replica may have something new. */
  written(name: string, replica: Replica): void
  /** Gives documents to every replica that is up. */
  repair(name: string, documents: readonly RawDocument[]): void
  /** Returns the replica of a node, and whether the node is up. */
  replicaOf(node: number): { replica: Replica; up: boolean }
  readonly n: number
  readonly quorum: number
}

/** Answers as the nodes of a CouchDB cluster do (`fabric`), from the replicas of databases with one shard each. */
export async function answer(messenger: Messenger, call: Call): Promise<Reply> {
  const { method, path } = call
  const [name = '', first] = path
  if (name === '' || name.startsWith('_')) return anyReplica(messenger, call)
  if (first === undefined || first === '') {
    return method === 'POST' ? writeOne(messenger, call) : anyReplica(messenger, call)
  }
  if (first === '_changes') return changes(messenger, call)
  if (first === '_all_docs') return allDocs(messenger, call)
  if (first === '_bulk_docs') return writeMany(messenger, call)
  if (first === '_bulk_get') return bulkGet(messenger, call)
  if (first === '_revs_diff') return anyReplica(messenger, call)
  if (first === '_purge') return everyReplica(messenger, call)
  if (method === 'DELETE') return deleteOne(messenger, call)
  if (method !== 'GET') return writeOne(messenger, call)
  return first === '_local' ? anyReplica(messenger, call) : readOne(messenger, call)
}

const numberOf = ({ query }: Call, name: 'r' | 'w', otherwise: number) => Number(query.get(name) ?? otherwise)

/** Returns the first answer of a replica. */
const anyReplica = (messenger: Messenger, call: Call) =>
  messenger.ask(
    (replica) => route(replica.seen, call),
    ([first]) => first
  )

/** Returns the first answer, once all replicas have answered. */
const everyReplica = (messenger: Messenger, call: Call) =>
  messenger.ask(
    (replica) => route(replica.store, call),
    ([first], waiting) => (waiting === 0 ? first : undefined)
  )

/**
 * Continues with the replica that a sequence comes from. If that is down, another replica rewinds to what that one surely
 * had.
 */
function changes(messenger: Messenger, call: Call): Promise<Reply> {
  const [, sequence, node] = /^(\d+)-replica(\d+)$/.exec(call.query.get('since') ?? '') ?? []
  if (node === undefined) return anyReplica(messenger, call)
  const { replica: read, up } = messenger.replicaOf(Number(node))
  const from = (replica: Replica) => {
    const since = replica === read ? Number(sequence) : replica.rewind(call.path[0]!, read, Number(sequence))
    const query = new URLSearchParams(call.query)
    query.set('since', String(since))
    return { ...call, query }
  }
  const work = (replica: Replica) => (up && replica !== read ? undefined : route(replica.seen, from(replica)))
  return messenger.ask(work, (replies) => replies.find((reply) => reply !== undefined))
}

// Writes.

/** A replica's answer to one edit, and the result for the client. An edit that keeps its revision has no result. */
interface Edit {
  key: string
  good: boolean
  result: { id?: string; rev?: string } | null
}

interface Verdict extends Edit {
  /** Status: 201, 202 when too few replicas have accepted the edit, 500 when none has answered. */
  health: number
}

const SILENT: Edit = { key: 'silent', good: true, result: null }
const NO_REPLICA: Edit = { key: 'internal_server_error', good: false, result: null }
const CONFLICT = 'Document update conflict.'

/** Returns fabric's decision on the answers to one edit, or `undefined` while another answer may change it. */
function verdict(edits: readonly Edit[], w: number, waiting: number): Verdict | undefined {
  const like = ({ key }: Edit) => edits.filter((other) => other.key === key).length
  const agreed = edits.find((edit) => edit.good && like(edit) >= w)
  if (agreed) return { ...agreed, health: 201 }
  if (waiting > 0) return undefined
  const accepted = edits.find((edit) => edit.good && edit.key !== SILENT.key)
  if (accepted) return { ...accepted, health: 202 }
  const [first] = edits
  if (!first) return { ...NO_REPLICA, health: 500 }
  // CouchDB does not report too few answers to an edit that keeps its revision
  return { ...first, health: like(first) === edits.length ? 201 : 500 }
}

/**
 * Writes one document to a replica, and returns the replica's answer.
 * @throws when the document itself is invalid
 */
function editOf(call: Call, replica: Replica): Edit {
  try {
    const result = route(replica.store, call).json as { rev: string }
    return { key: call.query.get('new_edits') === 'false' ? SILENT.key : result.rev, good: true, result }
  } catch (error) {
    if (!(error instanceof HttpError) || error.status !== 409) throw error
    return { key: error.code, good: false, result: null }
  }
}

async function writeOne(messenger: Messenger, call: Call): Promise<Reply> {
  const w = numberOf(call, 'w', messenger.quorum)
  const work = (replica: Replica) => {
    const edit = editOf(call, replica)
    messenger.written(call.path[0]!, replica)
    return edit
  }
  const { good, result, key, health } = await messenger.ask(work, (edits, waiting) =>
    verdict(edits, w, waiting)
  )
  if (good) return { status: health, json: result }
  throw key === 'conflict'
    ? new HttpError(409, key, CONFLICT)
    : new HttpError(500, key, 'no replica answered')
}

async function deleteOne(messenger: Messenger, call: Call): Promise<Reply> {
  const [name = '', ...path] = call.path
  const { docs } = await viewOf(messenger, name, [path.join('/')], messenger.quorum)
  if (docs.size === 0) throw new HttpError(404, 'not_found', 'missing')
  const reply = await writeOne(messenger, { ...call, method: 'PUT', body: Buffer.from('{"_deleted":true}') })
  return { ...reply, status: reply.status === 202 ? 202 : 200 }
}

interface BulkRequest {
  docs: { _id?: string }[]
  new_edits?: boolean
  w?: number
}

async function writeMany(messenger: Messenger, call: Call): Promise<Reply> {
  const { docs, new_edits: newEdits = true, w: asked } = JSON.parse(call.body.toString()) as BulkRequest
  if (!docs) return anyReplica(messenger, call)
  const w = asked ?? numberOf(call, 'w', messenger.quorum)
  const work = (replica: Replica) => {
    const results = route(replica.store, call).json as (
      | { id: string; rev?: string; error?: string }
      | undefined
    )[]
    messenger.written(call.path[0]!, replica)
    const resultOf = (id: string | undefined, at: number) =>
      newEdits ? results[at] : results.find((result) => result?.id === id)
    return docs.map(({ _id }, at): Edit => {
      const result = resultOf(_id, at)
      return result ? { key: result.rev ?? result.error ?? '', good: !result.error, result } : SILENT
    })
  }
  const verdicts = await messenger.ask(work, (answers, waiting) => {
    const all = docs.map((_, at) =>
      verdict(
        answers.map((edits) => edits[at]!),
        w,
        waiting
      )
    )
    return all.includes(undefined) ? undefined : (all as Verdict[])
  })
  const told = verdicts.filter(({ result }) => result !== null)
  return {
    status: Math.max(201, ...verdicts.map(({ health }) => health)),
    json: told.map(({ result, health }) => (health === 202 ? { ...result, accepted: true } : result))
  }
}

// Reads by a quorum. Each builds a small database from what the replicas agree upon, and answers from it.

type Found = RawDocument | undefined

async function readOne(messenger: Messenger, call: Call): Promise<Reply> {
  const [name = '', first = '', second = ''] = call.path
  const id = first === '_design' ? `_design/${second}` : first
  const r = Math.min(messenger.n, numberOf(call, 'r', messenger.quorum))
  const rev = call.query.get('rev')
  if (call.query.get('open_revs') === 'all') return fromView(call, await leavesOf(messenger, name, id, r))
  return fromView(
    call,
    rev === null ? await viewOf(messenger, name, [id], r) : await revisionOf(messenger, name, id, rev, r)
  )
}

const fromView = (call: Call, view: RawDatabase) => route(new Map([[call.path[0]!, view]]), call)

function seenIn(replica: Replica, name: string): RawDatabase {
  const database = replica.seen.get(name)
  if (!database) throw new HttpError(404, 'not_found', 'Database does not exist.')
  return database
}

/** Builds a database from documents. A document that was asked for twice has the leaves of both answers. */
function view(messenger: Messenger, name: string, found: readonly Found[]): RawDatabase {
  const docs = new Map<string, RawDocument>()
  for (const document of found) {
    if (!document) continue
    const leaves = unionOf([docs.get(document.id), document])
    docs.set(document.id, { ...document, leaves: docs.has(document.id) ? leaves : document.leaves })
  }
  return { ...seenIn(messenger.replicaOf(0).replica, name), docs }
}

async function viewOf(messenger: Messenger, name: string, ids: readonly string[], r: number) {
  return view(messenger, name, await Promise.all(ids.map((id) => winnerOf(messenger, name, id, r))))
}

const winner = ({ leaves }: RawDocument): RawRevision => leaves[0]!
const pathOf = (document: Found) => (document ? winner(document).history.join() : '')
const isAncestor = (of: RawDocument) => (document: RawDocument) =>
  document === of || winner(of).history.slice(1).includes(winner(document).history[0]!)

/**
 * Returns the document at the revision that `r` replicas agree upon. If they differ, repairs them and returns the
 * winner.
 */
async function winnerOf(messenger: Messenger, name: string, id: string, r: number): Promise<Found> {
  const work = (replica: Replica) => seenIn(replica, name).docs.get(id)
  const { answers, agreed } = await messenger.ask(work, (found, waiting) => {
    const like = (document: Found) => found.filter((other) => pathOf(other) === pathOf(document)).length
    const at = found.findIndex((document) => like(document) >= r)
    if (at < 0 && waiting > 0) return undefined
    return { answers: [...found], agreed: at < 0 ? undefined : { document: found[at] } }
  })
  if (new Set(answers.map(pathOf)).size === 1) return answers[0]
  const documents = answers.filter((document) => document !== undefined)
  messenger.repair(
    name,
    documents.map((document) => ({ ...document, leaves: [winner(document)] }))
  )
  const best = agreed?.document
  if (
    best &&
    documents.every((document) => pathOf(document) === pathOf(best) || isAncestor(best)(document))
  ) {
    return best
  }
  return documents.sort((a, b) => byWinner(winner(a), winner(b)))[0]
}

/** Returns the leaves of as many replicas as it takes until `r` replicas agree, and repairs replicas that differ. */
async function leavesOf(messenger: Messenger, name: string, id: string, r: number): Promise<RawDatabase> {
  const union = await messenger.ask(
    (replica) => seenIn(replica, name).docs.get(id),
    (found, waiting) => {
      const before = unionOf(found.slice(0, -1))
      const last = found.at(-1)?.leaves ?? []
      const agrees = last.length === before.length && last.every((leaf) => !isBranch(before, leaf))
      if (waiting > 0 && !(agrees && found.length >= r)) return undefined
      return {
        document: found.find(Boolean),
        leaves: unionOf(found),
        repair: new Set(found.map(allPaths)).size > 1
      }
    }
  )
  const document = union.document && { ...union.document, leaves: union.leaves }
  if (document && union.repair) messenger.repair(name, [document])
  return view(messenger, name, [document])
}

const allPaths = (document: Found) => document?.leaves.map(({ rev }) => rev).join() ?? ''

const unionOf = (found: readonly Found[]) =>
  found.flatMap((document) => document?.leaves ?? []).reduce(withLeaf, [] as RawRevision[])

/** Tells whether a leaf is neither in a tree nor extends one of its leaves. */
const isBranch = (tree: readonly RawRevision[], { history }: RawRevision) =>
  tree.every((leaf) => !leaf.history.includes(history[0]!) && !history.includes(leaf.history[0]!))

/** Returns the document at one revision. It is missing when `r` replicas say so before one that has it answers. */
async function revisionOf(messenger: Messenger, name: string, id: string, rev: string, r: number) {
  const at = (replica: Replica): Found => {
    const document = seenIn(replica, name).docs.get(id)
    const leaves = document?.leaves.filter((leaf) => leaf.rev === rev) ?? []
    return document && leaves.length > 0 ? { ...document, leaves } : undefined
  }
  const found = await messenger.ask(at, (answers, waiting) => {
    const having = answers.filter(Boolean).length
    const counts = [having, answers.length - having].filter((count) => count > 0)
    return Math.min(...counts) >= r || waiting === 0 ? { document: answers.find(Boolean) } : undefined
  })
  return view(messenger, name, [found.document])
}

async function bulkGet(messenger: Messenger, call: Call): Promise<Reply> {
  const name = call.path[0]!
  const r = numberOf(call, 'r', messenger.quorum)
  const asked: { id: string; rev?: string }[] = JSON.parse(call.body.toString()).docs
  const work = (replica: Replica) =>
    asked.map(({ id, rev }): Found => {
      const document = seenIn(replica, name).docs.get(id)
      const leaves = document?.leaves.filter((leaf) => leaf.rev === (rev ?? leaf.rev)) ?? []
      return document && leaves.length > 0 ? { ...document, leaves } : undefined
    })
  const answers = await messenger.ask(work, (all, waiting) => {
    const enough = asked.every((_, i) => agreeing(all.map((found) => found[i])) >= r)
    return enough || waiting === 0 ? [...all] : undefined
  })
  const found = asked.map((_, i) => {
    const each = answers.map((answer) => answer[i])
    const document = each.find(Boolean)
    return document && { ...document, leaves: unionOf(each) }
  })
  return fromView(call, view(messenger, name, found))
}

/** Counts the answers that add nothing to earlier ones. Empty answers do not count. */
function agreeing(found: readonly Found[]): number {
  const adds = (at: number) =>
    at > 0 &&
    new Set(found.slice(0, at + 1).flatMap(revs)).size > new Set(found.slice(0, at).flatMap(revs)).size
  const first = found.findIndex(Boolean)
  return found.filter((document, at) => document && (at === first || !adds(at))).length
}

const revs = (document: Found) => document?.leaves.map(({ rev }) => rev) ?? []

async function allDocs(messenger: Messenger, call: Call): Promise<Reply> {
  const inQuery = call.query.get('keys')
  const inBody = call.body.length > 0 ? JSON.parse(call.body.toString()).keys : undefined
  const keys: string[] | undefined = inQuery === null ? inBody : JSON.parse(inQuery)
  if (!keys) return anyReplica(messenger, call)
  return fromView(call, await viewOf(messenger, call.path[0]!, keys, messenger.quorum))
}
