import fc from 'fast-check'
import t from 'tap'
import { readDocument } from '../lib/json/document.js'
import { DocumentLine, idText, isOfLine } from '../lib/json/document-line.js'
import { JsonScanner } from '../lib/json/scanner.js'
import { character } from './helpers/arbitraries.js'
import { cases } from './helpers/settings.js'

/** What the scanner and the reader of members say of a line. */
function strictly(line: Buffer): { id: string; hasRevision: boolean } | undefined {
  try {
    const scanner = new JsonScanner({ begin: () => 'skip', bytes() {}, end() {} })
    scanner.write(line)
    scanner.end()
    if (!/^\s*\{/.test(line.toString())) return undefined
    const { id, rev } = readDocument(line)
    return { id, hasRevision: rev !== undefined }
  } catch {
    return undefined
  }
}

function quickly(line: Buffer): { id: string; hasRevision: boolean } | undefined {
  try {
    const found = new DocumentLine().read(line, 0, line.length)
    return { id: idText(found), hasRevision: found.hasRevision }
  } catch (error) {
    if (!isOfLine(error)) throw error
    return undefined
  }
}

const documents = fc
  .record({
    _id: fc.oneof(fc.string({ minLength: 1 }), fc.string({ unit: character, minLength: 1 })),
    _rev: fc.oneof(fc.constant('1-a'), fc.string()),
    more: fc.dictionary(fc.string(), fc.jsonValue()),
    order: fc.boolean()
  })
  .map(({ _id, _rev, more, order }) =>
    JSON.stringify(order ? { _id, _rev, ...more } : { ...more, _rev, _id })
  )

t.test('a line is judged as by the strict scanner, whatever stands in it', async () => {
  fc.assert(
    fc.property(documents, (text) => {
      const line = Buffer.from(text)
      return JSON.stringify(quickly(line)) === JSON.stringify(strictly(line))
    }),
    { numRuns: cases(200) }
  )
})

t.test('so is one that was changed in one place, cut or joined', async (t) => {
  const changes = fc.tuple(
    fc.nat(),
    fc.constantFrom(...'{}[]",:\\/0123456789.-eEtfn_ \t\u0001abu'),
    fc.nat(2)
  )
  fc.assert(
    fc.property(documents, changes, (text, [at, character, how]) => {
      const place = at % text.length
      const changed =
        how === 0
          ? text.slice(0, place) + character + text.slice(place + 1)
          : how === 1
            ? text.slice(0, place)
            : text.slice(0, place) + character + text.slice(place)
      // Lines are valid UTF-8, which is checked before.
      const line = Buffer.from(changed.toWellFormed())
      return JSON.stringify(quickly(line)) === JSON.stringify(strictly(line))
    }),
    { numRuns: cases(300) }
  )
  for (const text of ['{}', '[]', '', 'null', '{"_id":"a"}{"_id":"b"}', '{"_id":"a","_id":"b"}', '{"_id":1}'])
    t.strictSame(quickly(Buffer.from(text)), strictly(Buffer.from(text)), text)
})
