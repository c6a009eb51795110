import type { CouchDatabase, Revision } from '../couch/database.js'
import { CouchError } from '../couch/errors.js'
import type { Wanted } from '../couch/requests.js'
import { DamagedBackupError } from '../errors.js'
import { attachmentsIn, readStub } from '../json/attachments.js'
import { type DocumentBytes, documentSteps } from '../json/document.js'
import { isOwnDocument } from '../own-documents.js'
import { inTurns } from '../waits/steps.js'
import { makerOf, PART_RANGES } from './ids.js'

/** Parts read or deleted in one request. */
const AT_A_TIME = 500
/** Ids of parts that are read in one request. */
const PAGE = 2000

/** A part as the database shows it. */
export interface StoredPart extends Revision {
  /** Bytes of its JSON and of its attachments, as they are stored. */
  bytes: number
}

/** Returns the id of the backup that has made a listed part. @throws DamagedBackupError where the id is no part's */
export function listedMaker(header: string, part: string): string {
  const maker = makerOf(part)
  if (maker !== undefined) return maker
  throw new DamagedBackupError('header', header, `lists "${part}", which is no part of a backup`)
}

/**
 * Returns the documents that are the plugin's own: the console's may have such ids as well. One that is asked
 * for by its revision is returned even when it was deleted since.
 */
export async function ownParts(db: CouchDatabase, wanted: readonly Wanted[]): Promise<StoredPart[]> {
  const own: StoredPart[] = []
  for await (const { id, doc } of db.bulkGet(wanted, { attachments: false })) {
    const current = doc && (await inTurns(documentSteps(doc)))
    if (current?.rev && !current.deleted && isOwnDocument(id, current.type))
      own.push({ id, rev: current.rev, bytes: storedBytes(current) })
  }
  return own
}

/** Yields the documents that have ids of parts, in groups that can be read or deleted in one request. */
export async function* allParts(db: CouchDatabase): AsyncGenerator<Revision[]> {
  for (const { from, to } of PART_RANGES) {
    for (let next: string | undefined = from; next !== undefined; ) {
      const page: Revision[] = await db.rows({ from: next, to, limit: PAGE })
      yield* groupsOf(page.filter(({ id }) => id !== next))
      next = page.length < PAGE ? undefined : page.at(-1)?.id
    }
  }
}

/** Deletes parts, and makes sure that they are gone. @throws CouchError */
export async function deleteParts(db: CouchDatabase, parts: readonly Revision[]): Promise<void> {
  const results = await db.deleteRevisions(parts)
  const failed = parts.filter((_, i) => results[i]?.error !== undefined)
  if (failed.length === 0) return
  // A conflict is with this instance, when the answer to an earlier attempt was lost.
  const [left] = await ownParts(
    db,
    failed.map(({ id }) => ({ id }))
  )
  if (!left) return
  const { error = 'unknown', reason = '' } = results[parts.findIndex(({ id }) => id === left.id)]
  throw new CouchError(`deletion of ${left.id}`, { error, reason })
}

export function* groupsOf<T>(parts: readonly T[]): Generator<T[]> {
  for (let i = 0; i < parts.length; i += AT_A_TIME) yield parts.slice(i, i + AT_A_TIME)
}

function storedBytes(document: DocumentBytes): number {
  let bytes = document.bytes.length
  for (const { members } of attachmentsIn(document)) {
    const { length, encoded_length = length } = readStub(members, () => {})
    if (typeof encoded_length === 'number') bytes += encoded_length
  }
  return bytes
}
