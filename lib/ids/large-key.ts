import { createHash } from 'node:crypto'

/** Bytes of JSON that an id may take in a header or a line: entries of a thousand chunks stand in a header. */
const MAX_KEY = 512
/** A character takes at most six bytes of JSON, so that shorter ids need no look. */
const SURELY_SHORT = Math.floor((MAX_KEY - 2) / 6)
/** No id begins with it. */
const DIGEST = '_sha256/'

/** Returns an id, or a digest of one that is long. The key of a key is the key itself. */
export function largeKey(id: string): string {
  if (id.length <= SURELY_SHORT) return id
  if (id.length < MAX_KEY && Buffer.byteLength(JSON.stringify(id)) <= MAX_KEY) return id
  return DIGEST + createHash('sha256').update(idBytes(id)).digest('hex')
}

/** Returns the id that a key is; `undefined` of a long id's key. */
export const idOfKey = (key: string): string | undefined =>
  key === '' || key.startsWith(DIGEST) ? undefined : key

/** No text in UTF-8 has this byte. */
const NOT_UTF8 = Buffer.of(0xff)

/** Returns bytes that no other id has. UTF-8 spells every half of a character alike, which JSON may hold. */
export const idBytes = (id: string): Buffer =>
  id.isWellFormed() ? Buffer.from(id) : Buffer.concat([NOT_UTF8, Buffer.from(id, 'utf16le')])
