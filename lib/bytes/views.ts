/** Cuts bytes into views of at most so many. */
export function* slicesOf<T extends Uint8Array>(bytes: T, size: number): Generator<T> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size) as T
}

/** Returns the same bytes as a Buffer, without a copy. */
export function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
