import { Readable } from 'node:stream'
import fc from 'fast-check'
import t from 'tap'
import { slicesOf } from '../lib/bytes/views.js'
import { RowAnswer, type RowReader, rowMemory } from '../lib/couch/json-rows.js'
import { allDocsReader, type Change, changeReader, type RowDocument, rowDocument } from '../lib/couch/rows.js'
import { atOnce } from '../lib/waits/steps.js'
import { character } from './helpers/arbitraries.js'
import { cases } from './helpers/settings.js'

const name = fc.oneof(fc.stringMatching(/^[a-z]{1,8}$/), fc.string({ unit: character, minLength: 1 }))
const rev = fc.oneof(
  fc.constant('1-967a00dff5e02add41819138abb3284d'),
  fc.stringMatching(/^[1-9]-[ -~]{1,6}$/)
)
const members = fc.dictionary(
  fc.oneof(name, fc.constantFrom('type', '_attachments', '_conflicts', '_deleted', 'doc', '"doc":{')),
  fc.jsonValue({ maxDepth: 3 })
)

/** Rows of the changes feed, as CouchDB writes most, and some as it writes none. */
const change = fc
  .record({
    id: name,
    rev,
    members,
    deleted: fc.boolean(),
    /** CouchDB tells the sequence of some rows (`seq_interval`). */
    numbered: fc.boolean(),
    doc: fc.constantFrom('none', 'null', 'last', 'first')
  })
  .map(({ id, rev, members, deleted, numbered, doc }) => {
    const document = { doc: doc === 'null' ? null : { _id: id, _rev: rev, ...members } }
    return {
      ...(doc === 'first' && document),
      seq: numbered ? `7-${rev}` : null,
      id,
      changes: [{ rev }],
      ...(deleted && { deleted }),
      ...((doc === 'last' || doc === 'null') && document)
    }
  })

/** Rows of `_all_docs`. */
const row = fc
  .record({ id: name, rev, members, doc: fc.constantFrom('none', 'null', 'last') })
  .map(({ id, rev, members, doc }) => ({
    id,
    key: id,
    value: { rev },
    ...(doc !== 'none' && { doc: doc === 'null' ? null : { _id: id, _rev: rev, ...members } })
  }))

/** How rows are divided: by lines, as CouchDB does, or otherwise. */
const between = fc.constantFrom(',\r\n', ',\n', ',', ' ,\r\n', '\n,\n')

/** White space inside a row: CouchDB writes none, something before it may. */
const spaces = fc.constantFrom(0, 0, 0, 1)

const inPieces = (bytes: Buffer, length: number) => Readable.from(slicesOf(bytes, length))

/** Returns what a reader makes of an answer, or why it takes none. */
async function read<T extends { doc: RowDocument | null }>(
  bytes: Buffer,
  length: number,
  reader: RowReader<T>
) {
  const rows: unknown[] = []
  const answer = new RowAnswer(inPieces(bytes, length), 'results', reader, rowMemory())
  try {
    for await (const group of answer) {
      for (const { doc, ...head } of group) rows.push({ ...head, doc: doc && told(doc) })
    }
    return { rows, trailer: answer.trailer }
  } catch (error) {
    return { rows: [], failure: (error as Error).message }
  }
}

/** Returns what is read of a document, or why it is none. */
function told(doc: RowDocument): unknown {
  try {
    const { bytes, ...rest } = atOnce(rowDocument(doc))
    return { ...rest, text: bytes.toString() }
  } catch (error) {
    return (error as Error).message
  }
}

/** A reader that leaves all rows to the scanner. */
const withoutLines = <T>({ row }: RowReader<T>): RowReader<T> => ({ row })

for (const [what, rows, reader] of [
  ['the changes feed', change, changeReader],
  ['_all_docs', row, allDocsReader]
] as const) {
  const answers = fc
    .tuple(fc.array(fc.tuple(rows as fc.Arbitrary<object>, spaces), { maxLength: 12 }), between)
    .map(([all, between]) => {
      const lines = all.map(([row, space]) => JSON.stringify(row, null, space)).join(between)
      return Buffer.from(`{"results":[\n${lines}\n],\n"last_seq":"9-x","pending":0}\n`)
    })
  const lengths = fc.oneof(fc.integer({ min: 1, max: 60 }), fc.constant(1_000_000))

  t.test(`rows of ${what} are read by lines as the scanner reads them`, async (t) => {
    await t.resolves(
      fc.assert(
        fc.asyncProperty(answers, lengths, async (bytes, length) => {
          const quick = await read(bytes, length, reader() as RowReader<Change>)
          const strict = await read(bytes, bytes.length, withoutLines(reader() as RowReader<Change>))
          return JSON.stringify(quick) === JSON.stringify(strict)
        }),
        { numRuns: cases(200) }
      )
    )
  })

  t.test(`so are those of ${what} that were changed in one place, cut or joined`, async (t) => {
    const changes = fc.record({ at: fc.nat(), count: fc.nat(40), byte: fc.nat(255), how: fc.nat(3) })
    await t.resolves(
      fc.assert(
        fc.asyncProperty(answers, lengths, changes, async (bytes, length, { at, count, byte, how }) => {
          const place = at % bytes.length
          const [head, tail] = [bytes.subarray(0, place), bytes.subarray(place + (how === 0 ? 1 : count))]
          const changed = [
            Buffer.concat([head, Buffer.of(byte), tail]),
            Buffer.concat([head, tail]),
            head,
            Buffer.concat([head, Buffer.of(byte), bytes.subarray(place)])
          ][how] as Buffer
          const quick = await read(changed, length, reader() as RowReader<Change>)
          const strict = await read(changed, changed.length, withoutLines(reader() as RowReader<Change>))
          return JSON.stringify(quick) === JSON.stringify(strict)
        }),
        { numRuns: cases(400) }
      )
    )
  })
}

/** Returns how often the scanner reads rows in pieces, and all rows. */
async function readUsual(pieces: readonly string[]): Promise<{ scanned: number; rows: Change[] }> {
  const { line, row } = changeReader()
  const rows: Change[] = []
  let scanned = 0
  const reader: RowReader<Change> = {
    line,
    row(bytes) {
      scanned++
      return row(bytes)
    }
  }
  const body = Readable.from(pieces.map((piece) => Buffer.from(piece)))
  for await (const group of new RowAnswer(body, 'results', reader)) rows.push(...group)
  return { scanned, rows }
}

const usualWith = (seq: string) =>
  `{"seq":${seq},"id":"a","changes":[{"rev":"1-b"}],"doc":{"_id":"a","_rev":"1-b","type":"t"}}`
const usual = usualWith('"1-x"')

for (const end of ['\r\n', '\n']) {
  t.test(`usual rows are read by lines that end with ${JSON.stringify(end)}`, async (t) => {
    const { scanned, rows } = await readUsual([
      `{"results":[${end}${usual},${end}${usual},${end}${usualWith('null')}${end}],${end}"last_seq":"2-x"}`
    ])
    t.equal(scanned, 0)
    t.strictSame(
      rows.map(({ seq }) => seq),
      ['1-x', '1-x', null]
    )
    t.match(rows[1], { id: 'a', rev: '1-b', seq: '1-x', doc: { id: 'a', rev: '1-b', type: 't' } })
  })
}

t.test('so are rows that end with their pieces, and have their commas in the next', async (t) => {
  const { scanned, rows } = await readUsual([
    '{"results":[\r\n',
    usual,
    `,\r\n${usual}`,
    `,\r\n${usual},\r\n${usual}`,
    '\r\n],\r\n"last_seq":"2-x"}'
  ])
  t.equal(scanned, 0)
  t.equal(rows.length, 4)
})

t.test('a row of several lines does not take the memory of rows that wait', async (t) => {
  const odd = (id: string) =>
    `{"seq":"1-x",\n"id":"${id}","changes":[{"rev":"1-b"}],"doc":{"_id":"${id}",\n"_rev":"1-b","n":{"text":"${id.repeat(40)}"}}}`
  const text = `{"results":[\n${['a', 'b', 'c'].map(odd).join(',\n')}\n],"last_seq":"2-x"}`
  for (const cut of [60, 120, 200, 300]) {
    const body = Readable.from([text.slice(0, cut), text.slice(cut)].map((piece) => Buffer.from(piece)))
    const ids: string[] = []
    for await (const group of new RowAnswer(body, 'results', changeReader(), rowMemory()))
      for (const { doc } of group) ids.push(atOnce(rowDocument(doc as RowDocument)).id)
    t.strictSame(ids, ['a', 'b', 'c'], `in two pieces, the first of ${cut} bytes`)
  }
})

t.test('no rows are read of an answer that is an array', async (t) => {
  const groups: Change[][] = []
  const body = Readable.from([Buffer.from(`[\r\n${usual},\r\n${usual}\r\n]`)])
  await t.rejects(async () => {
    for await (const group of new RowAnswer(body, 'results', changeReader())) groups.push(group)
  }, /bad_answer/)
  t.strictSame(groups, [])
})
