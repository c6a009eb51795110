import type { CouchDatabase } from './database.js'
import { isLongRow } from './json-rows.js'
import type { Row } from './rows.js'

/** Rows of `_all_docs` in one request, without and with documents: a fault re-reads less than this. */
const SCAN_PAGE = { revision: 10_000, content: 1000 }

/** Reads all revisions in pages; with `content` also documents, unless one in the page is too long. */
export async function* allRows(db: CouchDatabase, wanted: 'revision' | 'content'): AsyncGenerator<Row[]> {
  const retrier = db.client.retrier()
  const limit = SCAN_PAGE[wanted]
  let last: string | undefined
  let hasLongRow = false
  for (;;) {
    const includeDocs = wanted === 'content' && !hasLongRow
    let rows = 0
    try {
      // Counts attempts here: a broken page is continued. Its first document may come twice.
      for await (const page of db.once.allDocs({ from: last, limit, includeDocs })) {
        rows += page.length
        yield page[0].id === last ? page.slice(1) : page
        last = page[page.length - 1].id
      }
    } catch (error) {
      if (rows > 1) retrier.progressed()
      if (includeDocs && isLongRow(error)) hasLongRow = true
      else await retrier.failed(error)
      continue
    }
    if (rows < limit) return
    hasLongRow = false
  }
}
