import type { LogicalDatabase } from '../../types/databases.js'
import type { DocumentDiff } from '../../types/diff.js'
import { digestOfStream } from '../couch/digest.js'
import { ToldFields } from '../format/told-fields.js'
import { bodyDifferences } from '../json/differences.js'
import { bodyBytes, type DocumentBytes } from '../json/document.js'
import { type Attachment, attachmentsOf, compareAttachments } from '../restore/same-content.js'
import { isLarge, type SourceDocument } from '../restore/source.js'
import { inTurns } from '../waits/steps.js'
import { diffOf, unknownDiff } from './document-diff.js'

type Attachments = ReadonlyMap<string, Attachment>

/** A live document to compare, and what is known of its attachments. */
interface ReadVersion {
  document: DocumentBytes
  attachments: Attachments
}

/** A version of a document, or why it cannot be compared. */
export type Comparable = ReadVersion | { id: string; problem: string }

/** What differences name, and whether they have values. */
export interface DiffForm {
  database: LogicalDatabase
  values: boolean
}

/** Returns what a document is compared by. Reads the attachments of a large one. */
export async function comparableOf(document: SourceDocument): Promise<Comparable> {
  if (!isLarge(document)) return { document, attachments: await inTurns(attachmentsOf(document)) }
  const { head, parts, problem } = document
  if (problem) return { id: head.id, problem: problem.message }
  const attachments = new Map(await inTurns(attachmentsOf(head)))
  for (const { name, length, open } of parts) {
    const digest = await digestOfStream(open())
    const { contentType } = attachments.get(name) as Attachment
    attachments.set(name, { contentType, length, digest: () => digest, data: undefined })
  }
  return { document: head, attachments }
}

/**
 * Compares two versions of a document. @returns the difference; `undefined` when they say the same
 * @param sameAttachments compares attachments of which too little is known
 */
export async function compareVersions(
  before: Comparable,
  after: Comparable,
  { database, values }: DiffForm,
  sameAttachments: () => Promise<boolean> = async () => false
): Promise<DocumentDiff | undefined> {
  if ('problem' in before) return unknownDiff(database, before.id, before.problem)
  if ('problem' in after) return unknownDiff(database, after.id, after.problem)
  const fields = new ToldFields(values)
  const sameBody = await inTurns(
    bodyDifferences(before.document, after.document, (name, one, other) => fields.add(name, one, other))
  )
  const compared = compareAttachments(before.attachments, after.attachments)
  const same = compared === 'same' || (compared === 'unknown' && (await sameAttachments()))
  if (sameBody && same) return undefined
  if (!same) fields.add(ATTACHMENTS, stubsOf(before), stubsOf(after))
  const bytes = { before: await bytesOf(before), after: await bytesOf(after) }
  return diffOf(database, before.document.id, 'changed', bytes, fields)
}

/** Makes the difference of a document that only one side has. */
export async function onlyIn(
  side: 'before' | 'after',
  comparable: Comparable,
  { database, values }: DiffForm
): Promise<DocumentDiff> {
  if ('problem' in comparable) return unknownDiff(database, comparable.id, comparable.problem)
  const { document, attachments } = comparable
  const fields = new ToldFields(values)
  const add = (name: string, value: Uint8Array | undefined) =>
    side === 'before' ? fields.add(name, value, undefined) : fields.add(name, undefined, value)
  if (values) {
    await inTurns(bodyDifferences(document, NOTHING, add))
    if (attachments.size > 0) add(ATTACHMENTS, stubsOf(comparable))
  }
  const change = side === 'before' ? 'deleted' : 'created'
  return diffOf(database, document.id, change, { [side]: await bytesOf(comparable) }, fields)
}

const ATTACHMENTS = '_attachments'

/** A document without members. */
const NOTHING = { bytes: Buffer.from('{}') }

async function bytesOf({ document, attachments }: ReadVersion): Promise<number> {
  let sum = await inTurns(bodyBytes(document))
  for (const { length = 0 } of attachments.values()) sum += length
  return sum
}

/** Returns attachments as JSON, for the values of a difference; `undefined` when there are none. */
function stubsOf({ attachments }: ReadVersion): Uint8Array | undefined {
  if (attachments.size === 0) return undefined
  const stubs = [...attachments].map(([name, { contentType, length }]) => [
    name,
    { content_type: contentType, length }
  ])
  return Buffer.from(JSON.stringify(Object.fromEntries(stubs)))
}
