/** Cuts bytes into views of at most so many. */
export function* slicesOf<T extends Uint8Array>(bytes: T, size: number): Generator<T> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size) as T
}
