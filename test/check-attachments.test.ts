import t from 'tap'
import { type DocumentBytes, InvalidDocumentError, readDocument } from '../lib/json/document.js'
import { checkAttachments, hasStub } from '../lib/restore/check-attachments.js'
import { inTurns } from '../lib/waits/steps.js'

/** Reads a document with attachments, each given as JSON. */
const documentWith = (...attachments: string[]): DocumentBytes =>
  readDocument(
    Buffer.from(`{"_id":"d","_attachments":{${attachments.map((json, i) => `"a${i}":${json}`).join(',')}}}`)
  )

const WHOLE = '{"content_type":"image/png","data":"AAAA"}'

t.test('attachments that the database would take are passed', async (t) => {
  for (const json of [
    WHOLE,
    '{"data":""}',
    '{"stub":true}',
    '{"stub":true,"content_type":"a/b","digest":7,"length":"x","revpos":[]}',
    '{"content_type":["a","b"],"data":"AAAA"}'
  ])
    await inTurns(checkAttachments(documentWith(WHOLE, json)))
  await inTurns(checkAttachments(readDocument(Buffer.from('{"_id":"d","_attachments":{}}'))))
  t.pass()
})

t.test('attachments for which the database would refuse all documents beside them are named', async (t) => {
  for (const [json, message] of [
    ['"x"', 'is not an object'],
    ['["data"]', 'is not an object'],
    ['{"data":"AAAA","follows":true}', 'says that its data follows'],
    ['{"data":7}', 'has a "data" that is not a string'],
    ['{"data":["AAAA"]}', 'has a "data" that is not a string'],
    ['{"data":"AAAA","content_type":null}', 'has a "content_type" that is not a string'],
    ['{"content_type":"image/png"}', 'has no data'],
    ['{"length":3}', 'has no data'],
    ['{}', 'has no data']
  ] as const) {
    const error = new InvalidDocumentError(`attachment "a1" of "d" ${message}`)
    await t.rejects(inTurns(checkAttachments(documentWith(WHOLE, json))), { message: error.message }, json)
  }
})

t.test('an attachment without data, or that says to be a stub, takes what the database has', async (t) => {
  for (const [json, expected] of [
    [WHOLE, false],
    ['{"data":"AAAA","stub":false}', false],
    ['{"data":"AAAA","stub":true}', true],
    ['{"stub":true}', true],
    ['{"stub":false}', true],
    ['{"content_type":"image/png"}', true],
    ['{"data":null}', true]
  ] as const) {
    t.equal(await inTurns(hasStub(documentWith(json))), expected, json)
    t.equal(await inTurns(hasStub(documentWith(WHOLE, json))), expected, `${json} after another`)
  }
})
