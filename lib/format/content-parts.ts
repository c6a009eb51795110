import type { LoadedBackup } from '../repository/loaded-backup.js'

/** A part of what is sent, which can be read from any place in it. */
export interface Part {
  /** Bytes of the part, unless only reading it tells. */
  length: number | undefined
  /** @param start bytes to leave out; 0 when the length is not known */
  read(backup: LoadedBackup, start: number): AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

export function textPart(text: string): Part {
  const bytes = Buffer.from(text)
  return { length: bytes.length, read: (_backup, start) => [bytes.subarray(start)] }
}

/** Returns the bytes of all parts, if all are known. */
export const totalLength = (parts: readonly Part[]): number | undefined =>
  parts.reduce<number | undefined>(
    (sum, { length }) => (sum === undefined || length === undefined ? undefined : sum + length),
    0
  )

/** Reads all parts from a place on. Earlier parts are not read. */
export async function* readParts(
  backup: LoadedBackup,
  parts: readonly Part[],
  start: number
): AsyncGenerator<Uint8Array> {
  let skip = start
  for (const part of parts) {
    if (part.length !== undefined && part.length <= skip) {
      skip -= part.length
      continue
    }
    yield* part.read(backup, skip)
    skip = 0
  }
}

export async function* dropBytes(
  pieces: AsyncIterable<Uint8Array>,
  count: number
): AsyncGenerator<Uint8Array> {
  let left = count
  for await (const piece of pieces) {
    if (piece.length > left) yield left > 0 ? piece.subarray(left) : piece
    left = Math.max(0, left - piece.length)
  }
}
