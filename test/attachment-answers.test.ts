import { createHash } from 'node:crypto'
import t from 'tap'
import { inlineAttachments } from '../lib/couch/attachments.js'
import { readDocument } from '../lib/json/document.js'
import { startAnsweringCouch } from './helpers/couch-client.js'

const STUB = '{"content_type":"text/plain","length":5,"stub":true}'
const DOCUMENT = readDocument(Buffer.from(`{"_id":"a","_rev":"1-a","_attachments":{"x":${STUB}}}`))
const md5 = (data: string) => `"${createHash('md5').update(data).digest('base64')}"`

t.test('an attachment is taken only with the length of its stub and the digest of its answer', async (t) => {
  let answer = { data: '', etag: '' }
  const { db } = await startAnsweringCouch(t, (_request, response) => {
    const { data, etag } = answer
    response.writeHead(200, { etag, 'content-type': 'text/plain', 'content-length': data.length })
    response.end(data)
  })
  const read = async (data: string, etag: string) => {
    answer = { data, etag }
    let text = ''
    for await (const piece of inlineAttachments(db, DOCUMENT)) text += Buffer.from(piece).toString()
    return JSON.parse(text)._attachments.x.data
  }
  t.equal(await read('right', md5('right')), Buffer.from('right').toString('base64'))
  await t.rejects(read('shor', md5('shor')), { error: 'truncated', message: /bytes came/ })
  await t.rejects(read('longer', md5('longer')), { error: 'truncated', message: /bytes came/ })
  await t.rejects(read('wrong', md5('right')), { error: 'bad_answer', message: /another digest/ })
})
