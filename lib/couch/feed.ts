import type { CouchDatabase } from './database.js'
import { isStalled, mayBeOfOneDocument } from './errors.js'
import type { Retrier } from './retry.js'
import type { Change } from './rows.js'

/** Rows of a page: a fault re-reads less than this. */
const PAGE = 10_000
/** Rows of a page that is read without documents, because with them it cannot be read. */
const BARE_PAGE = 1000
/** Pages beyond those that were to be expected, before the feed is read to its end in one request. */
const EXTRA_PAGES = 3

export interface FeedPosition {
  /** Everything up to this update sequence has been read. */
  since: string
}

/**
 * Reads the changes feed from `position.since`, which moves on, to its end.
 * The feed has ended where a page comes back short: the documents read are then exactly those of the database
 * at `position.since`. Stopping anywhere else would miss documents that moved to a later place meanwhile.
 * When writers outpace the pages, one last request without a limit reads what the database holds at that
 * moment.
 * A broken page is continued from the last sequence seen, so a document may come twice; the later version
 * counts. If a page breaks for good, the next rows come without documents.
 */
export async function* readFeed(
  db: CouchDatabase,
  position: FeedPosition,
  options: { includeDocs: boolean }
): AsyncGenerator<Change[]> {
  let retrier = db.client.retrier()
  let pagesLeft: number | undefined
  let bare = false
  for (;;) {
    const usual = pagesLeft === undefined || pagesLeft > 0 ? PAGE : undefined
    const limit = bare ? BARE_PAGE : usual
    // A broken page is continued where it broke, so attempts are counted here.
    const page = db.once.changes({ since: position.since, limit, includeDocs: options.includeDocs && !bare })
    const { since } = position
    let rows = 0
    try {
      for await (const changes of page) {
        rows += changes.length
        yield changes
        const seq = changes.findLast((change) => change.seq !== null)?.seq
        if (seq) position.since = seq
      }
    } catch (error) {
      if (position.since !== since) retrier.progressed()
      if (!(await isFinal(retrier, error))) continue
      // A feed that stalls does so without documents as well.
      const ofDocument = mayBeOfOneDocument(error) && !isStalled(error)
      if (!options.includeDocs || bare || !ofDocument) throw error
      bare = true
      // One attempt shows whether the documents are to blame.
      retrier = db.client.once.retrier()
      continue
    }
    if (bare) retrier = db.client.retrier()
    retrier.progressed()
    position.since = page.lastSeq
    if (limit === undefined || (rows < limit && !page.pending)) return
    pagesLeft ??= Math.ceil((page.pending ?? 0) / PAGE) + EXTRA_PAGES
    if (!bare) pagesLeft--
    bare = false
  }
}

/** Waits for the next attempt. @returns whether there is none */
async function isFinal(retrier: Retrier, error: unknown): Promise<boolean> {
  try {
    await retrier.failed(error)
    return false
  } catch (final) {
    if (final !== error) throw final
    return true
  }
}
