import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { call, load, type Server } from '../../bench/dataset.js'
import { bytesOf, seedDocuments } from './seed.js'

/** The contents of a database or an upload. */
export interface Shape {
  name: string
  /** Fills an empty database. */
  load?: (server: Server, database: string) => Promise<void>
  /** Fills an empty database with documents of the same ids and another content. */
  change?: (server: Server, database: string) => Promise<void>
  /** Writes an upload that no backup would give. */
  upload?: (file: string) => Promise<void>
}

const KB = 1000
const MB = 1000 * KB
/** Bytes and documents of each `_bulk_docs` that fills a database. */
const BODY = 4 * MB
const BATCH = 1000

/** Shapes by the names that `SHAPES` takes. */
export const SHAPES: Record<string, Shape> = {
  '100k': { name: '100,000 x 1 KB', load: (server, db) => fill(server, db, documents(100_000, KB)) },
  '1m': { name: '1,000,000 x 1 KB', load: (server, db) => fill(server, db, documents(1_000_000, KB)) },
  '20k': { name: '10,000 x 20 KB', load: (server, db) => fill(server, db, documents(10_000, 20 * KB)) },
  large: {
    name: '100 x 7 MB',
    load: (server, db) => fill(server, db, documents(100, 7 * MB)),
    change: (server, db) => fill(server, db, documents(5, 7 * MB, 1))
  },
  attachments: {
    name: '10,000 with an attachment of 20 KB',
    load: (server, db) =>
      fill(
        server,
        db,
        seedDocuments({ count: 10_000, size: KB, attachmentEvery: 1, attachmentSize: 20 * KB })
      )
  },
  attachment: { name: 'an attachment of 300 MB', load: (server, db) => attachment(server, db, 300 * MB) },
  mixed: {
    name: '7 MB in 150,000 values, and 150,000 x 100 bytes',
    load: (server, db) => fill(server, db, mixed(150_000)),
    change: (server, db) => fill(server, db, mixed(1, 1))
  },
  many: { name: '20,000 attachments in a document', load: (server, db) => fill(server, db, [many(20_000)]) },
  wide: {
    name: '7 MB in 600,000 members',
    load: (server, db) => fill(server, db, [wide(600_000)]),
    change: (server, db) => fill(server, db, [wide(600_000, 1)])
  },
  duplicates: { name: '100,000 documents, each 4 times', upload: (file) => duplicates(file, 100_000, 4) }
}

/** Yields documents of `size` bytes, the same on every run. Their text compresses like real text. */
export function* documents(count: number, size: number, revised = 0): Generator<string> {
  for (let n = 0; n < count; n++) {
    const text = bytesOf(`${n} ${revised}`, 300).toString('base64')
    const head = `{"_id":"doc_${String(n).padStart(8, '0')}","type":"fabric-peer","n":${n},"text":"`
    const left = size - head.length - 2
    yield `${head}${text.repeat(Math.ceil(left / text.length)).slice(0, left)}"}`
  }
}

/** Yields one large document of many small values, then small documents. */
export function* mixed(count: number, revised = 0): Generator<string> {
  const values = Array.from({ length: 150_000 }, (_, n) => `"k${n}":[${n},1.5,true,"v \\u00e9 ${n}"]`)
  yield `{"_id":"a_large","type":"fabric-peer","values":{${values.join(',')}},"revised":${revised}}`
  yield* documents(count, 100)
}

/** Returns a document with many small attachments. */
export function many(count: number): string {
  const stubs = Array.from({ length: count }, (_, n) => `"file ${n}.bin":{"data":"${btoa(`of ${n}`)}"}`)
  return `{"_id":"many","type":"fabric-peer","_attachments":{${stubs.join(',')}}}`
}

/** Returns a document of many small members, whose names begin like `type`, which the plugin looks for. */
export function wide(count: number, revised = 0): string {
  const members = Array.from({ length: count }, (_, n) => `"t${n}":${n % 10}`)
  return `{"_id":"wide","type":"fabric-peer",${members.join(',')},"revised":${revised}}`
}

/** Writes documents by `_bulk_docs`. */
async function fill(server: Server, database: string, docs: Iterable<string | object>): Promise<void> {
  let batch: string[] = []
  let bytes = 0
  let bodies: string[] = []
  const flush = async (atLeast: number) => {
    if (batch.length > 0) bodies.push(`{"docs":[${batch.join(',')}]}`)
    batch = []
    bytes = 0
    if (bodies.length < atLeast) return
    await load(server, database, bodies)
    bodies = []
  }
  for (const doc of docs) {
    const text = typeof doc === 'string' ? doc : JSON.stringify(doc)
    if (batch.length >= BATCH || (batch.length > 0 && bytes + text.length > BODY)) await flush(4)
    batch.push(text)
    bytes += text.length
  }
  await flush(0)
}

async function attachment({ origin, authorization }: Server, database: string, size: number): Promise<void> {
  const { rev } = (await call({ origin, authorization }, 'PUT', `/${database}/with_file`, '{}')) as {
    rev: string
  }
  const block = bytesOf('block', MB)
  let left = size
  const body = new ReadableStream({
    pull(controller) {
      controller.enqueue(block)
      left -= block.length
      if (left <= 0) controller.close()
    }
  })
  const response = await fetch(`${origin}/${database}/with_file/file.bin?rev=${rev}`, {
    method: 'PUT',
    body,
    duplex: 'half',
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(size),
      ...(authorization && { authorization })
    }
  } as RequestInit)
  if (!response.ok)
    throw new Error(`the attachment was not stored: ${response.status} ${await response.text()}`)
}

/** Writes an upload that holds each document several times. The last version counts. */
async function duplicates(file: string, count: number, times: number): Promise<void> {
  const write = function* () {
    yield '{"dbs":{"DB_COMPONENTS":{"docs":['
    for (let version = 0; version < times; version++)
      for (const text of documents(count, KB, version))
        yield `${version > 0 || !text.includes('"n":0,') ? ',' : ''}${text}`
    yield ']}}}'
  }
  await pipeline(write, createWriteStream(file))
}
