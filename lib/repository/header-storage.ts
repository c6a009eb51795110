import { LOGICAL_DATABASES } from '../databases.js'
import { isObject } from '../json/parsed.js'
import { LAYOUT, type StoredDatabase } from './layout.js'

type Test = (value: unknown) => boolean

/**
 * Returns what the `storage` of a header is: `later` where a later version made the backup, `damaged` where no version
 * writes such a value. Somebody may have edited the header.
 */
export function kindOfStorage(storage: unknown): 'known' | 'later' | 'damaged' {
  if (!isObject(storage) || !isCount(storage.layout) || storage.layout === 0) return 'damaged'
  if ((storage.layout as number) > LAYOUT) return 'later'
  return isStorage(storage) ? 'known' : 'damaged'
}

/**
 * Returns the lists of parts in the `storage` of a header, of whatever layout it says to be; `undefined` where they
 * cannot be told.
 */
export function databasesListed(storage: unknown): StoredDatabase[] | undefined {
  if (!isObject(storage) || !isObject(storage.databases)) return undefined
  const databases = Object.values(storage.databases)
  return databases.every(namesItsParts) ? (databases as StoredDatabase[]) : undefined
}

const isText: Test = (value) => typeof value === 'string'
const isName: Test = (value) => isText(value) && value !== ''
const isCount: Test = (value) => Number.isSafeInteger(value) && (value as number) >= 0

const optional =
  (test: Test): Test =>
  (value) =>
    value === undefined || test(value)
const listOf =
  (test: Test): Test =>
  (value) =>
    Array.isArray(value) && value.every(test)
/** Returns a test of these members; others may be there as well. */
function objectOf(tests: Record<string, Test>): Test {
  const members = Object.entries(tests)
  return (value) => isObject(value) && members.every(([name, test]) => test(value[name]))
}

const namesItsParts = objectOf({
  manifests: listOf(objectOf({ id: isName })),
  chunks: listOf(objectOf({ id: isName })),
  superseded: listOf(objectOf({ id: isName })),
  index: optional(listOf(objectOf({ id: isName })))
})

/** Returns whether a value is an entry of a chunk. */
export const isEntry = objectOf({
  id: isName,
  rev: isName,
  docs: isCount,
  design: isCount,
  raw: isCount,
  stored: isCount,
  sha256: isText,
  large: optional(isText),
  conflicts: optional(isText),
  dead: optional(objectOf({ docs: isCount, raw: isCount, lines: isText }))
})

const isDatabase = objectOf({
  manifests: listOf(objectOf({ id: isName, chunks: isCount, sha256: isText })),
  chunks: listOf(isEntry),
  superseded: listOf(isEntry),
  index: optional(listOf(isEntry)),
  key: optional(isText),
  source: optional(objectOf({ name: isText, created: isText, purges: isText }))
})

const isStorage = objectOf({
  system: optional(isText),
  databases: objectOf(Object.fromEntries(LOGICAL_DATABASES.map((name) => [name, optional(isDatabase)])))
})
