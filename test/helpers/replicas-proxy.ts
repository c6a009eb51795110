import { once } from 'node:events'
import { createServer, request as send } from 'node:http'
import { buffer } from 'node:stream/consumers'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import { listen } from './listen.js'
import { setupRawDatabases } from './raw-databases.js'

export interface Answer {
  status: number
  json: unknown
}

interface PassedRequest {
  /** `GET /database/...` */
  line: string
  body: string
  /** Passes the request on to the database, to `path` if given. */
  forward: (path?: string) => Promise<Answer>
}

/** Answers a request in place of the database. `undefined` leaves it to the next responder, and finally to the database. */
export type Responder = (request: PassedRequest) => Promise<Answer | undefined> | Answer | undefined

const NODES = ['a@x', 'b@x', 'c@x']
const RANGES = ['00000000-7fffffff', '80000000-ffffffff']

/** Starts a proxy that makes one server look like a cluster, whose replicas answer as the test says. */
async function startReplicas(
  t: Test,
  url: string,
  options: { replicas: readonly Responder[] }
): Promise<{ couch: ServerScope; requests: string[] }> {
  const target = new URL(url)
  const requests: string[] = []
  const server = createServer(async (request, response) => {
    const body = await buffer(request)
    const onward = async (path = request.url ?? '/') => {
      const { method, headers } = request
      const sent = send({ host: target.hostname, port: target.port, method, path, headers })
      sent.end(body)
      const [answer] = await once(sent, 'response')
      return { status: answer.statusCode, headers: answer.headers, bytes: await buffer(answer) }
    }
    const forward = async (path?: string) => {
      const { status, bytes } = await onward(path)
      return { status, json: JSON.parse(bytes.toString()) }
    }
    const line = `${request.method} ${request.url}`
    requests.push(line)
    let answer: Answer | undefined
    for (const replica of [...options.replicas, threeReplicas]) {
      answer ??= await replica({ line, body: body.toString(), forward })
    }
    if (answer) {
      response
        .writeHead(answer.status, { 'content-type': 'application/json' })
        .end(JSON.stringify(answer.json))
      return
    }
    const { status, headers, bytes } = await onward()
    response.writeHead(status, headers).end(bytes)
  })
  return { couch: nano(await listen(t, server)), requests }
}

/** Creates raw databases that are reached as a cluster of three replicas. */
export async function setupReplicas(t: Test, replicas: readonly Responder[]) {
  const raw = await setupRawDatabases(t)
  const cluster = await startReplicas(t, raw.url, { replicas })
  return { raw, cluster, on: { ...raw, couch: cluster.couch } }
}

/** Answers `GET /database` with three replicas of each shard. */
const threeReplicas: Responder = async ({ line, forward }) => {
  if (!/^GET \/(?!_)[^/?]+$/.test(line)) return undefined
  const { status, json } = await forward()
  const cluster = { q: RANGES.length, n: NODES.length, w: 2, r: 2 }
  return { status, json: status === 200 ? { ...(json as object), cluster } : json }
}

/** Refuses what only a server administrator may read. */
export const noAdministrator: Responder = ({ line }) =>
  /_sync_shards|_node\/|\/_shards|_membership/.test(line)
    ? { status: 401, json: { error: 'unauthorized', reason: 'You are not a server admin.' } }
    : undefined

interface Shards {
  /** Nodes that are up. Default: all. */
  up?: readonly string[]
  /** Tells whether a node has what the others have. Called before each answer. */
  knows(node: string, asked: number): boolean
  /** Number of changes that each replica has. Default 7. */
  seq?: number
  /** Returns the seconds since a node was started. Default: an hour. */
  uptime?(node: string): number
}

/** Answers requests about the replicas of each shard. */
export function shards({
  up = NODES,
  knows,
  seq = 7,
  uptime = () => 3600 + performance.now() / 1000
}: Shards): Responder {
  let asked = 0
  const uuid = (node: string) => `uuid of ${node}`
  const history = (target: string) =>
    NODES.filter((node) => node !== target).map((source) => ({
      doc: {
        history: {
          [source]: [
            {
              target_uuid: uuid(target),
              source_uuid: uuid(source),
              source_seq: knows(target, asked) ? seq : seq - 1
            }
          ]
        }
      }
    }))
  const ofNode = (node: string, what: string | undefined) => {
    if (what === '_changes') return { results: seq > 0 ? [{ seq }] : [], last_seq: seq }
    if (what !== '_local_docs') return { uuid: uuid(node), update_seq: seq + 5 }
    asked++
    return { rows: history(node) }
  }
  return ({ line }) => {
    const ok = (json: unknown, status = 200) => ({ status, json })
    if (/^POST \/\w+\/_sync_shards/.test(line)) return ok({ ok: true }, 202)
    if (/^GET \/\w+\/_shards/.test(line))
      return ok({ shards: Object.fromEntries(RANGES.map((range) => [range, NODES])) })
    if (/^GET \/_membership/.test(line)) return ok({ all_nodes: up, cluster_nodes: NODES })
    const system = /^GET \/_node\/([^/]+)\/_system/.exec(line)
    if (system) return ok({ uptime: uptime(decodeURIComponent(system[1]!)) })
    const node = /^GET \/_node\/([^/]+)\/shards%2F[^/]+%2F[^/?]+(?:\/(\w+))?/.exec(line)
    return node ? ok(ofNode(decodeURIComponent(node[1]!), node[2])) : undefined
  }
}

/** Answers that all replicas have the same changes. */
export const agreeing = shards({ knows: () => true })
