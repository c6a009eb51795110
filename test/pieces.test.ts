import { Readable } from 'node:stream'
import fc from 'fast-check'
import t from 'tap'
import { slicesOf } from '../lib/bytes/views.js'
import { RowAnswer, rowMemory } from '../lib/couch/json-rows.js'
import { readBackup } from '../lib/format/read-backup.js'

/** Lengths of documents and of pieces: many documents in a piece, and many pieces of a document. */
const texts = fc.array(fc.nat(400), { minLength: 1, maxLength: 40 })
const lengths = fc.oneof(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 100, max: 3000 }))
const documentOf = (length: number, i: number) => `{"_id":"d${i}","text":"${String(i % 10).repeat(length)}"}`
const inPiecesOf = (text: string, length: number) => Readable.from(slicesOf(Buffer.from(text), length))

t.test('rows of a group are whole until the next are asked for, however they come', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(texts, lengths, async (all, length) => {
        const expected = all.map(documentOf)
        const body = inPiecesOf(`{"results":[${expected}],"last_seq":"${'9'.repeat(200)}"}`, length)
        const found: string[] = []
        const answer = new RowAnswer(body, 'results', { row: (row) => row }, rowMemory())
        for await (const rows of answer) found.push(...rows.map((row) => Buffer.from(row).toString()))
        return (
          JSON.stringify(found.map((row) => JSON.parse(row))) === `[${expected}]` &&
          JSON.stringify(answer.trailer) === `{"last_seq":"${'9'.repeat(200)}"}`
        )
      })
    )
  )
})

t.test('documents of an upload are whole until more are asked for, however they come', async (t) => {
  const names = { components: 'components', sessions: 'sessions', system: 'system' }
  await t.resolves(
    fc.assert(
      fc.asyncProperty(texts, lengths, async (all, length) => {
        const expected = all.map(documentOf)
        const databases = `"DB_COMPONENTS":{"docs":[${expected}]},"DB_SYSTEM":{"docs":[${expected}]}`
        const body = inPiecesOf(`{"dbs":{${databases}}}`, length)
        const found: string[] = []
        for await (const items of readBackup(body, { names, inflatedBytes: 0 }))
          for (const item of items) if (item.kind === 'document') found.push(String(item.bytes))
        return `${found}` === `${[...expected, ...expected]}`
      })
    )
  )
})
