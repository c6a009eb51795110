import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { bulkIds, isBulk, type Reply, StaleReplica } from './stale-replica.js'

export type Fault =
  /** Refuses connections for `refusedFor` milliseconds, or until the faults are cleared when the rule lasts. */
  | 'refuse'
  /** Resets the connection. The request does not reach the database. */
  | 'reset'
  /** Resets the connection in the middle of the reply. */
  | 'reset_mid'
  /** Ends the reply after its headers, in its middle, or before its last byte, against its framing. */
  | 'cut_headers'
  | 'cut_mid'
  | 'cut_last'
  | 'cut_headers_chunked'
  | 'cut_mid_chunked'
  | 'cut_last_chunked'
  /** Sends half of the reply as a reply that is complete by its framing. */
  | 'short'
  /** Sends no reply. The request does not reach the database. */
  | 'stall'
  /** Sends half of the reply, then nothing. */
  | 'stall_mid'
  /**
   * Sends half of the reply, or all but its last bytes, then a reply of status 500, as CouchDB does in the body of an
   * attachment that it cannot read to its end. Not part of the matrix, since this happens to attachments only.
   */
  | 'error_mid'
  | 'error_last'
  /** Sends the reply a few bytes at a time. */
  | 'drip'
  | 'status_500'
  | 'status_503'
  /** Refuses with `Retry-After: 1`. */
  | 'status_429'
  | 'status_401'
  /** Refuses as a proxy does. Not part of the matrix, since it is played to single requests. */
  | 'status_403'
  /** Sends the reply as `text/plain`. */
  | 'wrong_type'
  /** Sends a page of HTML with status 200, as a gateway does. */
  | 'html'
  /** Sends the request to the database twice, and passes on the second reply. */
  | 'duplicate'
  /** Lets the request take effect, and resets the connection before the reply. */
  | 'reply_lost'
  /** Lets the request take effect, and never sends the reply. */
  | 'effect_no_answer'
  /** Sends 202 in place of 201, as when less than a majority of the replicas has taken the write. */
  | 'accepted'
  /**
   * Sends 500, as when no replica of a shard answers. In a `_bulk_docs` this fails one row, and the others are written.
   */
  | 'shard_500'
  /** Sends 412, as CouchDB does when nodes are down. */
  | 'nodedown'
  /** Answers writes with a conflict. They take no effect. */
  | 'conflict_storm'
  /** Answers writes with 412. They take no effect. */
  | 'precondition_storm'
  /** Answers from a replica of the database that has missed every write since the faults were cleared. */
  | 'stale'

/** The reply that CouchDB sends in the body of an attachment that it cannot read. */
const FAILURE_IN_BODY = Buffer.from(
  'HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\r\n{"error":"noproc","reason":"{gen_server,call,[<0.1.0>]}"}\n'
)

export const FAULTS: readonly Fault[] = [
  'refuse',
  'reset',
  'reset_mid',
  'cut_headers',
  'cut_mid',
  'cut_last',
  'cut_headers_chunked',
  'cut_mid_chunked',
  'cut_last_chunked',
  'short',
  'stall',
  'stall_mid',
  'drip',
  'status_500',
  'status_503',
  'status_429',
  'status_401',
  'wrong_type',
  'html',
  'duplicate',
  'reply_lost',
  'effect_no_answer',
  'accepted',
  'shard_500',
  'nodedown',
  'conflict_storm',
  'precondition_storm',
  'stale'
]

/** Faults that strike only requests that write. */
export const WRITE_FAULTS: readonly Fault[] = [
  'effect_no_answer',
  'accepted',
  'conflict_storm',
  'precondition_storm'
]

export interface Match {
  method?: string
  /** Tested against the decoded path and query. */
  path?: RegExp
  /** Tested against the request's body. */
  body?: RegExp
}

interface Rule extends Match {
  fault: Fault
  /** Number of the first matching request that the fault strikes, from 1. Default 1. */
  nth?: number
  /** How many matching requests the fault strikes. Default 1. */
  times?: number
  /** Milliseconds of the fault `refuse`. Default 100. */
  refusedFor?: number
}

export interface ActiveRule extends Rule {
  /** How often the fault has struck. */
  hits: number
  /** When the fault has struck, by the monotonic clock. */
  hitAt: number[]
}

export interface SeenRequest {
  method: string
  path: string
}

export interface FaultProxy {
  url: string
  /** Every request since the last `clear`. */
  seen: SeenRequest[]
  add(rule: Rule): ActiveRule
  /** Called with each request before it is passed on. `false` drops the request. */
  onRequest: ((request: SeenRequest) => boolean | undefined) | undefined
  /** Holds back matching requests until the returned function is called. */
  hold(match: Match): () => void
  /** Ends all faults and all stalled requests. */
  clear(): Promise<void>
  close(): Promise<void>
}

/** Bytes and milliseconds between them of the fault `drip`: slower than what counts as progress. */
const DRIP_BYTES = 24
const DRIP_PAUSE = 100

/**
 * Starts a proxy that plays faults, in front of a database. It streams requests that match no rule, and closes when the
 * test ends.
 */
export async function startFaultProxy(t: Pick<Test, 'teardown'>, target: string): Promise<FaultProxy> {
  const { hostname, port, username, password } = new URL(target)
  const auth = username ? `${decodeURIComponent(username)}:${decodeURIComponent(password)}` : undefined
  const sockets = new Set<Socket>()
  const stalled = new Set<Socket>()
  const matched = new Map<Match, number>()
  const stale = new StaleReplica()
  let rules: ActiveRule[] = []
  let holds: { match: Match; released: Promise<void>; release: () => void }[] = []
  let reopen: NodeJS.Timeout | undefined
  let closed = false

  const send = (request: IncomingMessage, body: Buffer | IncomingMessage) => {
    const headers = { ...request.headers, host: `${hostname}:${port}` }
    if (Buffer.isBuffer(body) && headers['content-length']) headers['content-length'] = String(body.length)
    const onward = httpRequest({
      hostname,
      port,
      auth: request.headers.authorization ? undefined : auth,
      method: request.method,
      path: request.url,
      headers
    })
    if (Buffer.isBuffer(body)) onward.end(body)
    else body.pipe(onward)
    return onward
  }

  const forward = async (request: IncomingMessage, body: Buffer): Promise<Reply> => {
    const [answer] = (await once(send(request, body), 'response')) as [IncomingMessage]
    return { status: answer.statusCode ?? 0, headers: answer.headers, body: await buffer(answer) }
  }

  const listen = async (at: number) => {
    server.listen(at, '127.0.0.1')
    await once(server, 'listening')
  }
  const refuse = () => {
    if (server.listening) server.close()
    for (const socket of sockets) socket.destroy()
  }
  const open = async () => {
    clearTimeout(reopen)
    reopen = undefined
    if (!server.listening && !closed) await listen(ownPort)
  }

  const ruleFor = (request: IncomingMessage, path: string, body: Buffer): ActiveRule | undefined => {
    let found: ActiveRule | undefined
    for (const rule of rules) {
      if (!matches(rule, request, path, body) || !canStrike(rule.fault, request, path)) continue
      const count = (matched.get(rule) ?? 0) + 1
      matched.set(rule, count)
      const from = rule.nth ?? 1
      if (count >= from && count < from + (rule.times ?? 1)) found ??= rule
    }
    return found
  }

  const canStrike = (fault: Fault, { method = '' }: IncomingMessage, path: string): boolean => {
    if (WRITE_FAULTS.includes(fault)) return isWrite(method, path)
    return fault !== 'stale' || stale.isBehind({ method, path })
  }

  const play = async (rule: ActiveRule, request: IncomingMessage, body: Buffer, response: ServerResponse) => {
    const { socket } = request
    const path = decode(request.url ?? '/')
    rule.hits++
    rule.hitAt.push(performance.now())
    if (/^(stall|drip|effect_no_answer)/.test(rule.fault)) stalled.add(socket)
    switch (rule.fault) {
      case 'refuse':
        refuse()
        if (rule.times === undefined || Number.isFinite(rule.times)) {
          reopen ??= setTimeout(() => void open(), rule.refusedFor ?? 100)
        }
        return
      case 'reset':
        return socket.resetAndDestroy()
      case 'stall':
        return
      case 'status_500':
        return answer(response, 500, '{"error":"internal_server_error","reason":"a fault"}')
      case 'status_503':
        return answer(response, 503, '{"error":"service_unavailable","reason":"a fault"}')
      case 'status_429':
        response.setHeader('retry-after', '1')
        return answer(response, 429, '{"error":"too_many_requests","reason":"a fault"}')
      case 'status_401':
        return answer(response, 401, '{"error":"unauthorized","reason":"a fault"}')
      case 'status_403':
        return answer(response, 403, '{"error":"blocked","reason":"a fault"}')
      case 'nodedown':
        return answer(response, 412, '{"error":"nodedown","reason":"progress not possible"}')
      case 'precondition_storm':
        return answer(response, 412, '{"error":"precondition_failed","reason":"a fault"}')
      case 'conflict_storm':
        if (!isBulk(path)) return answer(response, 409, JSON.stringify(CONFLICT))
        return answer(response, 201, JSON.stringify(bulkIds(body).map((id) => ({ id, ...CONFLICT }))))
      case 'shard_500':
        if (isBulk(path)) break
        return answer(response, 500, JSON.stringify(NO_SHARD))
      case 'html':
        response.setHeader('content-type', 'text/html')
        return void response.end('<html><body>Welcome</body></html>')
    }
    if (rule.fault === 'duplicate') await forward(request, body)
    const asked = { method: request.method ?? '', path }
    const now = await forward(request, rule.fault === 'shard_500' ? withoutLast(body) : body)
    const reply = rule.fault === 'stale' ? stale.tell(asked, now) : now
    if (rule.fault === 'effect_no_answer') return
    if (rule.fault === 'accepted') accept(reply)
    if (rule.fault === 'shard_500') addRow(reply, { id: bulkIds(body).at(-1), ...NO_REPLY })
    if (rule.fault === 'reply_lost') return socket.resetAndDestroy()
    if (rule.fault === 'wrong_type') reply.headers['content-type'] = 'text/plain'
    const chunked = rule.fault.endsWith('_chunked')
    const half = reply.body.subarray(0, reply.body.length >> 1)
    const whole = rule.fault === 'short' ? half : reply.body
    delete reply.headers['transfer-encoding']
    delete reply.headers.connection
    if (chunked || reply.headers['content-length'] === undefined || request.method !== 'HEAD') {
      reply.headers['content-length'] = chunked ? undefined : String(whole.length)
    }
    for (const [name, value] of Object.entries(reply.headers)) {
      if (value !== undefined) response.setHeader(name, value)
    }
    response.statusCode = reply.status
    switch (rule.fault.replace('_chunked', '')) {
      case 'reset_mid':
        response.flushHeaders()
        return void response.write(half, () => socket.resetAndDestroy())
      case 'cut_headers':
        response.flushHeaders()
        return socket.destroySoon()
      case 'cut_mid':
      case 'cut_last': {
        const part = rule.fault.startsWith('cut_mid') ? half : reply.body.subarray(0, -1)
        response.flushHeaders()
        if (part.length > 0) response.write(part)
        return socket.destroySoon()
      }
      case 'stall_mid':
        response.flushHeaders()
        if (half.length > 0) response.write(half)
        return
      case 'error_mid':
      case 'error_last': {
        const part = rule.fault === 'error_mid' ? half : reply.body.subarray(0, -FAILURE_IN_BODY.length)
        response.flushHeaders()
        response.write(part)
        response.write(FAILURE_IN_BODY)
        return rule.fault === 'error_last' ? socket.destroySoon() : undefined
      }
      case 'drip':
        response.flushHeaders()
        for (let at = 0; at < whole.length && !socket.destroyed; at += DRIP_BYTES) {
          response.write(whole.subarray(at, at + DRIP_BYTES))
          await delay(DRIP_PAUSE)
        }
        return void response.end()
      default:
        return void response.end(request.method === 'HEAD' ? undefined : whole)
    }
  }

  const serve = async (request: IncomingMessage, response: ServerResponse) => {
    const path = decode(request.url ?? '/')
    const seen = { method: request.method ?? '', path }
    proxy.seen.push(seen)
    if (proxy.onRequest?.(seen) === false) return void request.socket.destroy()
    // a stale replica has to see every request, to know what it misses
    const concerned =
      rules.some(({ fault }) => fault === 'stale') ||
      [...rules, ...holds.map(({ match }) => match)].some((match) =>
        matches({ ...match, body: undefined }, request, path, NOTHING)
      )
    if (!concerned) {
      const onward = send(request, request)
      onward.on('error', () => request.socket.destroy())
      response.on('close', () => onward.destroy())
      const [reply] = (await once(onward, 'response')) as [IncomingMessage]
      response.writeHead(reply.statusCode ?? 0, reply.headers)
      reply.on('error', () => request.socket.destroy())
      reply.pipe(response)
      return
    }
    const body = await buffer(request)
    for (const { match, released } of holds) {
      if (matches(match, request, path, body)) await released
    }
    const rule = ruleFor(request, path, body)
    if (isWrite(seen.method, path)) stale.misses(seen, body)
    if (rule) return play(rule, request, body, response)
    const reply = await forward(request, body)
    if (rules.some(({ fault }) => fault === 'stale')) stale.keep(seen, reply)
    response.writeHead(reply.status, reply.headers)
    response.end(request.method === 'HEAD' ? undefined : reply.body)
  }

  const server = createServer((request, response) => {
    // the client or the database has closed its connection
    serve(request, response).catch(() => request.socket.destroy())
  })
  server.requestTimeout = 0
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
  })
  await listen(0)
  const ownPort = (server.address() as AddressInfo).port
  const credentials = username ? `${username}:${password}@` : ''

  const proxy: FaultProxy = {
    url: `http://${credentials}127.0.0.1:${ownPort}`,
    seen: [],
    onRequest: undefined,
    add(rule) {
      const active = { ...rule, hits: 0, hitAt: [] }
      rules.push(active)
      return active
    },
    hold(match) {
      let release = () => {}
      const released = new Promise<void>((resolve) => {
        release = resolve
      })
      const entry = { match, released, release }
      holds.push(entry)
      return () => {
        holds = holds.filter((other) => other !== entry)
        release()
      }
    },
    async clear() {
      rules = []
      for (const { release } of holds) release()
      holds = []
      matched.clear()
      stale.catchUp()
      proxy.seen.length = 0
      for (const socket of stalled) socket.destroy()
      stalled.clear()
      await open()
    },
    async close() {
      closed = true
      clearTimeout(reopen)
      for (const { release } of holds) release()
      if (server.listening) server.close()
      for (const socket of sockets) socket.destroy()
    }
  }
  t.teardown(() => proxy.close())
  return proxy
}

const NOTHING = Buffer.alloc(0)
const CONFLICT = { error: 'conflict', reason: 'Document update conflict.' }
const NO_SHARD = { error: 'internal_server_error', reason: 'No DB shards could be opened.' }
/** The row that CouchDB sends for a document when no replica of its shard has answered. */
const NO_REPLY = { error: 'unknown_error', reason: 'internal_server_error' }

const isWrite = (method: string, path: string) => /PUT|DELETE/.test(method) || isBulk(path)

/** Changes a reply to what CouchDB answers when less than a majority of the replicas has taken the write. */
function accept(reply: Reply): void {
  if (reply.status !== 201) return
  reply.status = 202
  const told: unknown = JSON.parse(reply.body.toString())
  if (!Array.isArray(told)) return
  reply.body = Buffer.from(JSON.stringify(told.map((row) => (row.ok ? { ...row, accepted: true } : row))))
}

function withoutLast(body: Buffer): Buffer {
  const { docs, ...rest } = JSON.parse(body.toString()) as { docs: object[] }
  return Buffer.from(JSON.stringify({ ...rest, docs: docs.slice(0, -1) }))
}

function addRow(reply: Reply, row: object): void {
  reply.status = 500
  reply.body = Buffer.from(JSON.stringify([...JSON.parse(reply.body.toString()), row]))
}

function matches(match: Match, request: IncomingMessage, path: string, body: Buffer): boolean {
  if (match.method !== undefined && match.method !== request.method) return false
  if (match.path !== undefined && !match.path.test(path)) return false
  return match.body === undefined || match.body.test(body.toString('latin1'))
}

function answer(response: ServerResponse, status: number, body: string): void {
  response.writeHead(status, { 'content-type': 'application/json' })
  response.end(body)
}

function decode(url: string): string {
  try {
    return decodeURIComponent(url)
  } catch {
    return url
  }
}
