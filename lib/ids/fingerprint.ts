import { randomBytes } from 'node:crypto'
import SipHash from 'siphash'
import { idBytes, largeKey } from './large-key.js'

/** A 64-bit keyed hash of a document id, in two 32-bit halves. */
export interface Fingerprint {
  h: number
  l: number
}

// A key of this process: nobody can choose ids that collide.
const key = Array.from(new Uint32Array(randomBytes(16).buffer.slice(0, 16)))

/** Returns the fingerprint of an id, which is also that of its {@link largeKey}. */
export const fingerprint = (id: string): Fingerprint => SipHash.hash(key, idBytes(largeKey(id)))
