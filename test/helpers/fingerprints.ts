import { createHash } from 'node:crypto'
import { type FetchedDocument, isOwn } from './database.js'

/** Digests of what documents hold, attachments included, by their ids. The plugin's own documents are left out. */
export type Fingerprints = Map<string, string>

/** Returns the fingerprints of documents. A document that comes twice has two. */
export function fingerprintsOf(documents: Iterable<FetchedDocument>): Fingerprints {
  const prints: Fingerprints = new Map()
  for (const document of documents) {
    if (isOwn(document)) continue
    let key = document._id
    while (prints.has(key)) key += ' (again)'
    prints.set(key, fingerprint(document))
  }
  return prints
}

/** Leaves out revisions, since a restored document gets a new one, and what depends on when it was written. */
function fingerprint({ _attachments = {}, _rev, ...document }: FetchedDocument): string {
  const attachments = Object.entries(_attachments).map(([name, { content_type, data }]) => [
    name,
    content_type,
    data
  ])
  return createHash('sha256')
    .update(JSON.stringify([document, attachments]))
    .digest('hex')
}

/** Tells how documents differ from what they should be, and names a few. Empty when they do not differ. */
export function difference(expected: Fingerprints, found: Fingerprints): string {
  const missing = [...expected.keys()].filter((id) => !found.has(id))
  const different = [...expected.keys()].filter((id) => found.has(id) && found.get(id) !== expected.get(id))
  const extra = [...found.keys()].filter((id) => !expected.has(id))
  return Object.entries({ missing, different, 'too many': extra })
    .filter(([, ids]) => ids.length > 0)
    .map(([what, ids]) => `${ids.length} ${what} (${ids.slice(0, 3).join(', ')})`)
    .join(', ')
}
