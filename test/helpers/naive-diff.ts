import type { DocumentDiff, LogicalDatabase } from '../../types/index.js'
import { contentOf } from './chain.js'
import { DATABASES } from './database.js'
import { members } from './raw-couch.js'

/** The members of a diff that a test compares. */
export type Told = Pick<DocumentDiff, 'database' | 'id' | 'change' | 'fields'>

const NEVER = ['_id', '_rev', '_revisions']

/** Returns the members of a document by name, as text, and its type. */
function bodyOf(text: string): { body: Map<string, string>; type: string | undefined } {
  const bytes = Buffer.from(text, 'latin1')
  const body = new Map<string, string>()
  for (const { key, start, end } of members(bytes)) {
    if (NEVER.includes(key)) continue
    const value = bytes.toString('latin1', start, end)
    body.set(key, key === '_attachments' ? attachmentsOf(value) : value)
  }
  const type = body.get('type')
  return { body, type: type === undefined ? undefined : JSON.parse(type) }
}

function attachmentsOf(json: string): string {
  const attachments = Object.entries(
    JSON.parse(json) as Record<string, { content_type: string; data: string }>
  )
  return JSON.stringify(
    attachments.map(([name, { content_type, data }]) => [name, content_type, data]).sort()
  )
}

/** Compares two downloads document by document. @param leftOut types that one of them may have left out */
export function naiveDiff(before: Buffer, after: Buffer, leftOut: readonly string[] = []): Told[] {
  const [one, other] = [contentOf(before), contentOf(after)]
  return DATABASES.flatMap((database) => {
    const key = `athena_${database}`
    return databaseDiff(database, one[key] ?? new Map(), other[key] ?? new Map(), leftOut)
  })
}

function databaseDiff(
  database: LogicalDatabase,
  before: Map<string, string>,
  after: Map<string, string>,
  leftOut: readonly string[]
): Told[] {
  const told: Told[] = []
  const counts = (text: string) => !leftOut.includes(bodyOf(text).type ?? '')
  for (const [id, text] of before) {
    const other = after.get(id)
    if (other === undefined) {
      if (counts(text)) told.push({ database, id, change: 'deleted' })
      continue
    }
    const [{ body }, { body: now }] = [bodyOf(text), bodyOf(other)]
    const names = new Set([...body.keys(), ...now.keys()])
    const fields = [...names].filter((name) => body.get(name) !== now.get(name))
    if (fields.length > 0) told.push({ database, id, change: 'changed', fields })
  }
  for (const [id, text] of after)
    if (!before.has(id) && counts(text)) told.push({ database, id, change: 'created' })
  return told
}

/** Returns what is compared of an id: a diff cuts long ones. */
export const shown = (id: string): string => id.slice(0, 50)

/** Makes diffs comparable: sorted, and with ids as they are told. */
export const sorted = (told: readonly Told[]): string[] =>
  told
    .map(({ database, id, change, fields }) =>
      JSON.stringify([database, shown(id), change, fields === undefined ? null : [...fields].sort()])
    )
    .sort()
