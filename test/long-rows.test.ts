import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import t from 'tap'
import { isLongRow } from '../lib/couch/json-rows.js'
import { startAnsweringCouch } from './helpers/couch-client.js'

const MiB = 1024 * 1024
/** `MAX_ROW` of `json-rows.ts`. */
const MOST = 64 * MiB
const PIECE = Buffer.alloc(64 * 1024, 'x')

/** Resolves when the response drains or closes, and removes its listeners then. */
async function takenOrLeft(response: ServerResponse): Promise<void> {
  const over = new AbortController()
  const { signal } = over
  await Promise.race(['drain', 'close'].map((event) => once(response, event, { signal })))
  over.abort()
}

/** Sends a page of the feed with one row of this size, until the client stops reading. */
async function sendRow(response: ServerResponse, bytes: number): Promise<number> {
  const head = '{"seq":"1","id":"a","changes":[{"rev":"1-a"}],"doc":{"_id":"a","_rev":"1-a","text":"'
  const tail = '"}}'
  response.setHeader('content-type', 'application/json')
  response.write(`{"results":[${head}`)
  let sent = 0
  for (let left = bytes - head.length - tail.length; left > 0 && !response.destroyed; left -= PIECE.length) {
    const free = response.write(PIECE.subarray(0, left))
    sent += Math.min(left, PIECE.length)
    if (!free) await takenOrLeft(response)
  }
  response.end(`${tail}],"last_seq":"1","pending":0}`)
  return sent
}

for (const [bytes, isTaken] of [
  [MOST, true],
  [MOST + 1, false],
  [4 * MOST, false]
] as const) {
  const outcome = isTaken ? 'is read' : 'is not held, and its answer is read no further'
  t.test(`a row of the changes feed of ${bytes} bytes ${outcome}`, async (t) => {
    let sent = 0
    const { db, reading } = await startAnsweringCouch(t, async (_request, response) => {
      sent = await sendRow(response, bytes)
    })
    let rows = 0
    const read = async () => {
      for await (const changes of db.changes({ since: '0', includeDocs: true })) {
        rows += changes.length
        t.equal(
          (changes[0]!.doc as Uint8Array).length,
          bytes - '{"seq":"1","id":"a","changes":[{"rev":"1-a"}],"doc":'.length
        )
      }
    }
    if (isTaken) {
      await read()
      t.equal(rows, 1)
      return
    }
    const error = await read().then(
      () => undefined,
      (error: unknown) => error
    )
    t.ok(isLongRow(error), `${error}`)
    t.equal(rows, 0)
    while (reading() > 0) await new Promise((resolve) => setTimeout(resolve, 5))
    t.ok(sent < MOST + 16 * MiB, `${sent} bytes were sent`)
  })
}
