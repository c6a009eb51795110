import { createHash } from 'node:crypto'

/** Bytes of JSON for an id in a header or a line: a header holds many entries of chunks. */
const MAX_KEY = 512
/** Characters of ids that are their own keys: one takes at most six bytes of JSON. */
export const SURELY_SHORT = Math.floor((MAX_KEY - 2) / 6)
/** No id begins with this. */
const DIGEST = '_sha256/'

/** Returns an id, or the digest of a long one. A key's key is itself. */
export function largeKey(id: string): string {
  if (id.length <= SURELY_SHORT) return id
  if (id.length < MAX_KEY && Buffer.byteLength(JSON.stringify(id)) <= MAX_KEY) return id
  return DIGEST + createHash('sha256').update(idBytes(id)).digest('hex')
}

/** Returns the id of a key; `undefined` for a digest. */
export const idOfKey = (key: string): string | undefined =>
  key === '' || key.startsWith(DIGEST) ? undefined : key

const NOT_UTF8 = Buffer.of(0xff)

/** Returns bytes that no other id has: UTF-8 would spell all lone surrogates, which JSON may hold, alike. */
export const idBytes = (id: string): Buffer =>
  id.isWellFormed() ? Buffer.from(id) : Buffer.concat([NOT_UTF8, Buffer.from(id, 'utf16le')])
