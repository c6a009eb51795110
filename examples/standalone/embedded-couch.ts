import { randomBytes } from 'node:crypto'
import { EventEmitter, once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import expressPouch from 'express-pouchdb'
import PouchDB from 'pouchdb'
import memoryAdapter from 'pouchdb-adapter-memory'
import { parseMultipart, partName } from './multipart.js'

PouchDB.plugin(memoryAdapter)

/** The database in which express-pouchdb lists all others. */
const LIST_OF_DATABASES = 'pouch__all_dbs__'

export interface EmbeddedCouchOptions {
  /** Directory of the data. Default `./data/couch`. */
  directory?: string
  /** Keeps nothing on disk. Default `false`. */
  memory?: boolean
  /** Address to listen on. Default `127.0.0.1`; keep it, since there is no authentication. */
  host?: string
  /** Port to listen on. Default 0, any free port. */
  port?: number
}

export interface EmbeddedCouch {
  url: string
  close(): Promise<void>
}

/**
 * Starts a database with CouchDB's HTTP API inside this process, for trials and tests.
 * @throws when the directory cannot be used, for example since another process uses it
 */
export async function startEmbeddedCouch(options: EmbeddedCouchOptions = {}): Promise<EmbeddedCouch> {
  const { directory = join('data', 'couch'), memory = false, host = '127.0.0.1', port = 0 } = options
  if (!memory) mkdirSync(directory, { recursive: true })
  // the memory adapter shares databases of the same name across the process: a random prefix separates servers
  const storage = memory
    ? { adapter: 'memory', prefix: `${randomBytes(8).toString('hex')}_` }
    : { adapter: 'leveldb', prefix: join(directory, '/') }

  // the constructor's events would tell every server about all databases: each server has events of its own
  const events = new EventEmitter()
  const open = new Map<string, PouchDB>()
  class Pouch extends PouchDB {
    static override defaults = () => Pouch
    static override on = events.on.bind(events)
    static override emit = events.emit.bind(events)

    constructor(name: string, options?: object) {
      // a deterministic revision hashes each attachment as a JSON array of its bytes: 200 MB exhaust the heap
      super(name, { ...storage, deterministic_revs: false, ...options })
      open.set(name, this)
      this.once('created', () => events.emit('created', name))
    }
  }
  events.on('destroyed', (name: string) => open.delete(name))
  if (!memory) await checkDirectory(directory, new Pouch(LIST_OF_DATABASES))

  // the minimal mode writes neither config.json nor log.txt; compression would waste processor time on loopback
  const couch = expressPouch(Pouch, {
    mode: 'minimumForPouchDB',
    inMemoryConfig: true,
    overrideMode: { include: ['routes/find', 'validation'], exclude: ['compression'] }
  })
  const server = createServer((request, response) => {
    const multipart =
      request.method === 'PUT' && /^multipart\/related/i.test(request.headers['content-type'] ?? '')
    if (!multipart) return couch(request, response)
    readMultipart(request).then(
      () => couch(request, response),
      (error: Error) => {
        response.writeHead(400, { 'content-type': 'application/json', connection: 'close' })
        response.end(JSON.stringify({ error: 'bad_request', reason: error.message }))
      }
    )
  })
  server.requestTimeout = 0
  // a client that takes up a connection as it is closed fails: Node's 5 s pass on a busy machine
  server.keepAliveTimeout = 300_000
  server.listen(port, host)
  await once(server, 'listening')

  const close = async () => {
    server.close()
    server.closeIdleConnections()
    const cut = setTimeout(() => server.closeAllConnections(), 2_000)
    await once(server, 'close')
    clearTimeout(cut)
    events.removeAllListeners()
    // the databases of views are opened after the database they belong to, and must be closed before it
    for (const database of [...open.values()].reverse())
      await (memory ? database.destroy() : database.close())
  }
  let closing: Promise<void> | undefined
  return {
    url: `http://${host}:${(server.address() as AddressInfo).port}`,
    close: () => {
      closing ??= close()
      return closing
    }
  }
}

/** Opens a database, and throws an error that names the directory: that of a first request would not. */
async function checkDirectory(directory: string, database: PouchDB): Promise<void> {
  try {
    await database.info()
  } catch (error) {
    const { message } = error as Error
    throw new Error(
      message.startsWith('IO error: lock ')
        ? `the data in ${directory} is in use by another server: stop that server, or choose another directory with --data`
        : `the directory ${directory} cannot be used: ${message}`
    )
  }
}

/**
 * Reads a multipart document and puts it on the request as body-parser would, with attachments as buffers.
 * express-pouchdb's own parser leaves a file behind for each attachment. It ends the process on a part without a file
 * name and on a JSON part above 2 MB.
 */
async function readMultipart(request: IncomingMessage): Promise<void> {
  const parts = parseMultipart(request.headers['content-type'] ?? '', await buffer(request))
  const document = JSON.parse(parts.shift()?.body.toString() ?? '')
  const attachments: Record<string, { follows?: true; data?: Buffer }> = document._attachments ?? {}
  const following = Object.keys(attachments).filter((name) => attachments[name]?.follows)
  for (const part of parts) {
    const attachment = attachments[partName(part, following) ?? '']
    if (!attachment) throw new Error('a part belongs to no attachment')
    delete attachment.follows
    attachment.data = part.body
  }
  if (following.length > 0) throw new Error(`attachment ${following[0]} is missing`)
  request.headers['content-type'] = 'application/json'
  Object.assign(request, { _body: true, body: document })
}
