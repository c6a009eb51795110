import { randomBytes } from 'node:crypto'
import siphash24 from 'siphash24'
import { idBytes, largeKey } from './large-key.js'

/** A 64-bit keyed hash of a document id, in two 32-bit halves. */
export interface Fingerprint {
  h: number
  l: number
}

export type Fingerprinter = (id: string) => Fingerprint

const KEY_BYTES = 16

/** Returns a new random key, in hex. */
export const newFingerprintKey = (): string => randomBytes(KEY_BYTES).toString('hex')

/** Returns the function that makes fingerprints with a key. An id has the fingerprint of its {@link largeKey}. */
export function fingerprinter(key: string): Fingerprinter {
  const ofBytes = bytesFingerprinter(key)
  return (id) => ofBytes(idBytes(largeKey(id)))
}

/** Returns the same function for ids in UTF-8 that are short enough to be their own keys. */
export function bytesFingerprinter(key: string): (id: Uint8Array) => Fingerprint {
  const secret = Buffer.from(key, 'hex')
  const hash = Buffer.alloc(8)
  return (id) => {
    siphash24(id, secret, hash)
    return { h: hash.readUInt32LE(4), l: hash.readUInt32LE(0) }
  }
}

/** Makes fingerprints with a key of this process: nobody can choose ids that collide. */
export const fingerprint = fingerprinter(newFingerprintKey())
