import { deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import fc from 'fast-check'
import t from 'tap'
import { type ReadBackupOptions, readBackup } from '../lib/format/read-backup.js'
import { LARGE_DOCUMENT } from '../lib/json/document.js'
import { MAX_DEPTH } from '../lib/json/scanner.js'
import { cut, cuts, jsonNode, stringText } from './helpers/arbitraries.js'
import { bytesOf } from './helpers/seed.js'
import { cases } from './helpers/settings.js'

const OPTIONS: ReadBackupOptions = {
  names: { components: 'my_components', sessions: 'my_sessions', system: 'my_system' },
  inflatedBytes: 64 * 1024 * 1024
}

/** Returns the items as text, with the pieces of a document joined. */
async function read(pieces: readonly Buffer[], options: Partial<ReadBackupOptions> = {}): Promise<string[]> {
  const found: string[] = []
  let parts: Buffer[] = []
  const body = async function* () {
    for (const piece of pieces) yield Buffer.from(piece)
  }
  for await (const items of readBackup(body(), { ...OPTIONS, ...options })) {
    for (const item of items) {
      if (item.kind === 'member') found.push(`${item.name}=${JSON.stringify(item.value)}`)
      else if (item.kind === 'about') found.push(`${item.where}=${JSON.stringify(item.value)}`)
      else if (item.kind === 'database') found.push(`database ${item.database} ${item.key}`)
      else {
        parts.push(Buffer.from(item.bytes))
        if (item.kind === 'piece' && !item.last) continue
        found.push(`${item.database} ${item.where} ${Buffer.concat(parts).toString('latin1')}`)
        parts = []
      }
    }
  }
  return found
}

const deflated = (text: string) => deflateSync(text).toString('base64')
const compressed = (base64: string) => Buffer.from(`{"dbs":{"system":{"compressed_docs":"${base64}"}}}`)

const database = fc.record({
  docs: fc.array(
    jsonNode.filter(({ kind }) => kind === 'object').map(({ text }) => text),
    { maxLength: 4 }
  ),
  form: fc.constantFrom('docs', 'compressed_docs', 'compressed_docs, solidus escaped'),
  about: fc.constantFrom('', '"last_sequence":"7-x",', '"start_timestamp":1.0, "elapsed" : {"a":[]},'),
  after: fc.constantFrom('', ',"doc_count":5')
})

const KEYS = [
  ['components', 'DB_COMPONENTS'],
  ['sessions', 'athena_sessions'],
  ['system', 'my_system']
] as const

/** The text of a backup, and its items. */
const backup = fc
  .tuple(fc.array(database, { maxLength: 3 }), stringText, fc.boolean())
  .map(([databases, text, membersFirst]) => {
    const items: string[] = []
    const dbs = databases.map(({ docs, form, about, after }, i) => {
      const [name, key] = KEYS[i]!
      const member = form === 'docs' ? 'docs' : 'compressed_docs'
      items.push(`database ${name} ${key}`)
      for (const [n, doc] of docs.entries()) {
        items.push(`${name} dbs.${key}.${member}[${n}] ${Buffer.from(doc).toString('latin1')}`)
      }
      const array = `[${docs.join(', ')}]`
      const base64 = form.endsWith('escaped') ? deflated(array).replaceAll('/', '\\/') : deflated(array)
      return `"${key}": {${about}"${member}": ${form === 'docs' ? array : `"${base64}"`}${after}}`
    })
    const member = `"elapsed":${text}`
    const item = `elapsed=${JSON.stringify(JSON.parse(text))}`
    const all = [`"dbs":{${dbs.join()}}`, `"_attachments":{"a":"YQ=="},"storage":[${text}]`]
    if (membersFirst) return { text: `{${[member, ...all].join()}}`, items: [item, ...items] }
    return { text: `{${[...all, member].join()}}`, items: [...items, item] }
  })

t.test('gives the same items however the text is cut', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(backup, cuts, async ({ text, items }, shares) => {
        const found = await read(cut(Buffer.from(text), shares))
        return JSON.stringify(found) === JSON.stringify(items)
      }),
      { numRuns: cases(150) }
    )
  )
})

t.test('gives documents that are too large for memory in pieces', async (t) => {
  const sizes = [LARGE_DOCUMENT - 1, LARGE_DOCUMENT, LARGE_DOCUMENT + 1, 3 * LARGE_DOCUMENT]
  const docs = sizes.map((size, i) => {
    const frame = `{"_id":"${i}","text":""}`.length
    return `{"_id":"${i}","text":"${bytesOf(`${i}`, size)
      .toString('hex')
      .slice(0, size - frame)}"}`
  })
  t.same(
    docs.map(({ length }) => length),
    sizes
  )
  const array = `[${docs.join()}]`
  const forms = [Buffer.from(`{"dbs":{"system":{"docs":${array}}}}`), compressed(deflated(array))]
  for (const body of forms) {
    const pieces: Buffer[] = []
    for (let at = 0; at < body.length; at += 65_536) pieces.push(body.subarray(at, at + 65_536))
    const seen: { kind: string; length: number }[] = []
    let held = 0
    const stream = async function* () {
      yield* pieces
    }
    for await (const items of readBackup(stream(), OPTIONS)) {
      let group = 0
      for (const item of items) {
        if (item.kind !== 'document' && item.kind !== 'piece') continue
        group += item.bytes.length
        const last = seen[seen.length - 1]
        if (item.kind === 'piece' && last?.kind === 'open') last.length += item.bytes.length
        else seen.push({ kind: item.kind === 'piece' ? 'open' : 'whole', length: item.bytes.length })
        if (item.kind === 'piece' && item.last) seen[seen.length - 1]!.kind = 'pieces'
      }
      held = Math.max(held, group)
    }
    t.strictSame(
      seen,
      sizes.map((length, i) => ({ kind: i < 2 ? 'whole' : 'pieces', length }))
    )
    t.ok(held < 3 * LARGE_DOCUMENT, `${held} bytes at a time`)
  }
})

t.test('refuses what is not deflated JSON, and says where', async (t) => {
  const docs = JSON.stringify(Array.from({ length: 500 }, (_, i) => ({ _id: `doc_${i}`, x: i })))
  const good = deflated(docs)
  const bytes = Buffer.from(good, 'base64')
  const wrong: [string, string, RegExp][] = [
    ['nothing', '', /dbs\.system\.compressed_docs"/],
    ['no base64', '!!!!', /"dbs\.system\.compressed_docs" is not base64/],
    ['base64url', good.replaceAll('+', '-').replaceAll('/', '_'), /is not base64/],
    ['a space', `${good.slice(0, 8)} ${good.slice(8)}`, /is not base64/],
    ['gzip', gzipSync(docs).toString('base64'), /cannot be inflated/],
    ['raw deflate', deflateRawSync(docs).toString('base64'), /cannot be inflated/],
    ['no compression', Buffer.from(docs).toString('base64'), /cannot be inflated/],
    ['cut in its middle', bytes.subarray(0, bytes.length >> 1).toString('base64'), /cannot be inflated/],
    ['cut before its checksum', bytes.subarray(0, -4).toString('base64'), /cannot be inflated/],
    ['cut in its checksum', bytes.subarray(0, -1).toString('base64'), /cannot be inflated/],
    [
      'a wrong checksum',
      Buffer.from(bytes.map((b, i) => (i === bytes.length - 1 ? b ^ 1 : b))).toString('base64'),
      /cannot be inflated/
    ],
    ['an empty text', deflated(''), /is truncated/],
    ['an object', deflated('{}'), /does not inflate to an array/],
    ['two arrays', deflated('[][]'), /is not JSON: .* at byte 2/],
    ['no object', deflated('[{},null]'), /compressed_docs\[1\] is not an object/],
    ['truncated JSON', deflated(docs.slice(0, -1)), /is truncated/]
  ]
  for (const [what, base64, message] of wrong) {
    for (const shares of [[], [0.5], null]) {
      await t.rejects(read(cut(compressed(base64), shares)), { statusCode: 400, message }, what)
    }
  }
})

t.test('never hangs on damaged data, nor takes it for good', async (t) => {
  const docs = Array.from({ length: 40 }, (_, i) => JSON.stringify({ _id: `doc_${i}`, x: `${i}`.repeat(i) }))
  const good = deflateSync(`[${docs.join()}]`)
  const expected = JSON.stringify(await read([compressed(good.toString('base64'))]))
  const edit = fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }))
  await t.resolves(
    fc.assert(
      fc.asyncProperty(
        fc.array(edit, { minLength: 1, maxLength: 3 }),
        fc.nat(20),
        cuts,
        async (edits, less, shares) => {
          const bytes = Buffer.from(good)
          for (const [at, bits] of edits) bytes[at]! ^= bits
          const body = compressed(bytes.subarray(0, bytes.length - less).toString('base64'))
          try {
            return JSON.stringify(await read(cut(body, shares))) === expected
          } catch (error) {
            return (error as { statusCode?: number }).statusCode === 400
          }
        }
      ),
      { numRuns: cases(100) }
    )
  )
})

t.test('stops inflating at the limit', async (t) => {
  const limit = 1_000_000
  const text = (length: number) => `[{"_id":"${'x'.repeat(length - 12)}"}]`
  t.equal((await read([compressed(deflated(text(limit)))], { inflatedBytes: limit })).length, 2)
  const tooLarge = {
    statusCode: 413,
    message: /"dbs\.system\.compressed_docs" inflates to more than 1000000 bytes/
  }
  await t.rejects(read([compressed(deflated(text(limit + 1)))], { inflatedBytes: limit }), tooLarge)

  const bomb = compressed(deflateSync(Buffer.alloc(200_000_000, 0x20), { level: 1 }).toString('base64'))
  const before = process.memoryUsage()
  let most = 0
  const pieces = async function* () {
    for (let at = 0; at < bomb.length; at += 16_384) {
      yield bomb.subarray(at, at + 16_384)
      const { rss } = process.memoryUsage()
      most = Math.max(most, rss - before.rss)
    }
  }
  const drain = async (options: ReadBackupOptions) => {
    for await (const _ of readBackup(pieces(), options));
  }
  await t.rejects(drain({ ...OPTIONS, inflatedBytes: limit }), tooLarge)
  await t.rejects(drain({ ...OPTIONS, inflatedBytes: 2 ** 40 }), { statusCode: 400, message: /is truncated/ })
  t.ok(most < 100_000_000, `${most} bytes more while 200 MB of white space were inflated`)
})

t.test('refuses a body of another form, naming the field', async (t) => {
  const wrong: [string, RegExp][] = [
    ['', /the body is truncated/],
    ['[]', /the body must be an object/],
    ['{}', /"dbs" is missing/],
    ['{"dbs":[]}', /"dbs" must be an object/],
    ['{"dbs":{},"dbs":{}}', /"dbs" stands in the body twice/],
    ['{"dbs":{},"d\\u0062s":{}}', /"dbs" stands in the body twice/],
    ['{"docs":[]}', /unknown key "docs" in the body/],
    ['{"dbs":{"other":{"docs":[]}}}', /"dbs\.other" is not a database/],
    ['{"dbs":{"system":[]}}', /"dbs\.system" must be an object/],
    ['{"dbs":{"system":{"docs":{}}}}', /"dbs\.system\.docs" must be an array/],
    ['{"dbs":{"system":{"compressed_docs":[]}}}', /"dbs\.system\.compressed_docs" must be a string/],
    ['{"dbs":{"system":{"docs":[],"docs":[]}}}', /"dbs\.system\.docs" stands there twice/],
    ['{"dbs":{"system":{"docs":[],"rows":[]}}}', /unknown key "dbs\.system\.rows"/],
    ['{"dbs":{"system":{"docs":[{},[]]}}}', /dbs\.system\.docs\[1\] is not an object/],
    ['{"dbs":{"system":{"docs":[{}]}}', /the body is truncated/],
    ['{"dbs":{}}x', /the body is not JSON: .* at byte 10/],
    [`{"elapsed":"${'x'.repeat(300_000)}","dbs":{}}`, /"elapsed" is too long/],
    [
      `{"dbs":{"system":{"docs":[{"a":${'['.repeat(MAX_DEPTH)}`,
      /^the body is no backup: nested deeper than [0-9]+ levels at byte/
    ]
  ]
  for (const [text, message] of wrong) {
    const bytes = Buffer.from(text)
    for (const pieces of [[bytes], cut(bytes, [0.3, 0.9])]) {
      await t.rejects(read(pieces), { statusCode: 400, message }, text.slice(0, 60))
    }
  }
})
