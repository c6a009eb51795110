import type { CouchDatabase } from './database.js'
import { isLongRow } from './json-rows.js'
import type { Row } from './rows.js'

/** Rows of `_all_docs` in one request, without and with documents: a fault re-reads less than this. */
const SCAN_PAGE = { revision: 10_000, content: 1000 }

/**
 * Reads all documents, in pages: their ids and revisions, with `content` what they say as well, but for the page of a
 * document that is too long to be held in memory.
 */
export async function* allRows(db: CouchDatabase, wanted: 'revision' | 'content'): AsyncGenerator<Row[]> {
  const retrier = db.client.retrier()
  const limit = SCAN_PAGE[wanted]
  let last: string | undefined
  let includeDocs = wanted === 'content'
  for (;;) {
    let rows = 0
    try {
      // Pages are counted as attempts here: one that broke goes on where it did.
      // The last document of the page before comes again, unless it was deleted meanwhile.
      for await (const page of db.once.allDocs({ from: last, limit, includeDocs })) {
        rows += page.length
        yield page[0].id === last ? page.slice(1) : page
        last = page[page.length - 1].id
      }
    } catch (error) {
      if (rows > 1) retrier.progressed()
      if (includeDocs && isLongRow(error)) includeDocs = false
      else await retrier.failed(error)
      continue
    }
    if (rows < limit) return
    includeDocs = wanted === 'content'
  }
}
