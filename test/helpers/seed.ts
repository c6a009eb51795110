import { createCipheriv, createHash } from 'node:crypto'
import type { DocumentScope } from 'nano'

interface SeedOptions {
  count: number
  /** Approximate bytes of JSON of each document. Default 1200. */
  size?: number
  /** Prefix of the ids. Default `doc`. */
  prefix?: string
  /** Gives every nth document an attachment. Default: none. */
  attachmentEvery?: number
  attachmentSize?: number
}

interface SeedDocument {
  _id: string
  type: string
  _attachments?: Record<string, { content_type: string; data: string }>
  [key: string]: unknown
}

const TYPES = ['fabric-peer', 'fabric-orderer', 'fabric-ca', 'msp']

/** Returns bytes that do not compress, the same for the same name. */
export function bytesOf(name: string, length: number): Buffer {
  const key = createHash('sha256').update(name).digest()
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length))
}

/** Returns bytes that are compressed and decompressed fast, the same for the same name. */
export const repeatedBytes = (name: string, length: number): Buffer =>
  Buffer.alloc(length, bytesOf(name, Math.min(length, 16 * 1024)))

/** Yields documents like those of a console, the same on every run. */
export function* seedDocuments(options: SeedOptions): Generator<SeedDocument> {
  const { count, size = 1200, prefix = 'doc', attachmentEvery = 0, attachmentSize = 1000 } = options
  for (let i = 0; i < count; i++) {
    const id = `${prefix}_${String(i).padStart(8, '0')}`
    const document: SeedDocument = {
      _id: id,
      type: TYPES[i % TYPES.length]!,
      display_name: `Component ${i}`,
      api_url: `https://${id}.example.com:7054`,
      timestamp: 1_592_922_838_408 + i,
      nested: { location: 'saas', ports: [7051, 9443], enabled: i % 2 === 0, parent: null }
    }
    const left = size - JSON.stringify(document).length - ',"tls_cert":""'.length
    if (left > 0) {
      document.tls_cert = bytesOf(id, Math.ceil(left * 0.75))
        .toString('base64')
        .slice(0, left)
    }
    if (attachmentEvery > 0 && i % attachmentEvery === 0) {
      const data = bytesOf(`${id} attachment`, attachmentSize).toString('base64')
      document._attachments = { 'file.bin': { content_type: 'application/octet-stream', data } }
    }
    yield document
  }
}

/** Strings that a careless reader of JSON or of paths takes for something else. */
export const HOSTILE_STRINGS: readonly string[] = [
  '',
  '"',
  '\\',
  '\\"',
  '\\\\"}],{',
  '"_id":"x","_rev":"1-a"',
  '{"docs":[{"_id":"inner"}],"last_seq":0}',
  ']}',
  '\n\r\t\b\f\u0000\u001f\u007f',
  '\u2028\u2029\ufeff\ufffe\uffff',
  'é ü 漢字 😀 \u{10ffff}',
  'e\u0301',
  '</script>',
  '%2F%00+ &=?#',
  '__proto__',
  'constructor'
]

/** Returns documents whose ids, keys and values are easily mistaken for something else. */
export function hostileDocuments(): SeedDocument[] {
  const ids = [
    'a b',
    'a/b',
    'a+b%2Fc',
    'ü漢😀',
    '"quoted"',
    'back\\slash',
    '{}',
    '0',
    '-1',
    'null',
    '~',
    '__proto__'
  ]
  const documents: SeedDocument[] = ids
    .filter((id) => !id.startsWith('_'))
    .map((id) => ({ _id: id, type: 'hostile', strings: [...HOSTILE_STRINGS] }))
  documents.push({
    _id: 'hostile_keys',
    type: 'hostile',
    // a plain assignment of __proto__ would set the prototype
    keys: Object.fromEntries(HOSTILE_STRINGS.map((key, i) => [key, i])),
    docs: [{ _id: 'inner', _rev: '1-a', _deleted: true, _attachments: {} }],
    deep: JSON.parse(`${'['.repeat(100)}${']'.repeat(100)}`)
  })
  documents.push({
    _id: 'hostile_attachments',
    type: 'hostile',
    _attachments: Object.fromEntries(
      ['a b.txt', 'a/b.txt', 'ü漢😀', '"quoted"', '%2F', 'empty'].map((name) => [
        name,
        {
          content_type: 'text/plain; charset=utf-8',
          data: name === 'empty' ? '' : Buffer.from(`of ${name}`).toString('base64')
        }
      ])
    )
  })
  return documents
}

/** Members of documents that change when they are parsed and serialized. For databases that keep bytes. */
export const LOSSY_MEMBERS: readonly string[] = [
  '"big":9007199254740993',
  '"huge":123456789012345678901234567890',
  '"float":1.0',
  '"exponent":1E+2',
  '"tiny":0.1000000000000000055511151231257827',
  '"minus":-0',
  '"escapes":"\\u0041\\/\\u00e9"',
  '"surrogate":"\\ud83d"',
  '"spaces": [ 1 , { } ,\t[ ] ]',
  '"b":1,"a":2,"2":3,"1":4'
]

/**
 * Writes documents by `_bulk_docs`, and returns their number.
 * @throws when a document was not written
 */
export async function load(
  database: DocumentScope<unknown>,
  documents: Iterable<object>,
  batch = 500
): Promise<number> {
  let count = 0
  let docs: object[] = []
  const flush = async () => {
    const results = await database.bulk({ docs })
    const failed = results.find(({ error }) => error)
    if (failed || results.length !== docs.length) throw new Error(`not loaded: ${JSON.stringify(failed)}`)
    count += docs.length
    docs = []
  }
  for (const document of documents) {
    docs.push(document)
    if (docs.length === batch) await flush()
  }
  if (docs.length > 0) await flush()
  return count
}
