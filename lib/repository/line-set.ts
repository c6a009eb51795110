import { DamagedBackupError } from '../errors.js'
import { OrdinalSet } from '../ids/ordinal-set.js'
import type { ChunkEntry, DeadLines } from './layout.js'

/** Bits of a number in each byte of its stored form. */
const BITS = 7
const MORE = 1 << BITS

/** Returns a set of lines among the first `count` as text: base64 of gaps and runs in turn. */
export function encodeLines(lines: OrdinalSet, count: number): string {
  const bytes: number[] = []
  let run = 0
  let isIn = false
  for (let line = 0; line <= count; line++) {
    const is = line < count && lines.has(line)
    if (is === isIn && line < count) {
      run++
      continue
    }
    // What comes after the last line of the set is not told.
    if (isIn || line < count) pushNumber(bytes, run)
    isIn = is
    run = 1
  }
  return Buffer.from(bytes).toString('base64')
}

/** Reads what {@link encodeLines} returned. @throws RangeError for lines beyond `count` */
export function decodeLines(text: string, count: number): OrdinalSet {
  const lines = new OrdinalSet()
  let line = 0
  let isIn = false
  for (const run of numbersIn(Buffer.from(text, 'base64'))) {
    if (line + run > count) throw new RangeError(`a line beyond the last, ${count}`)
    if (isIn) for (let i = 0; i < run; i++) lines.add(line + i)
    line += run
    isIn = !isIn
  }
  return lines
}

function pushNumber(bytes: number[], number: number): void {
  let left = number
  for (; left >= MORE; left = Math.floor(left / MORE)) bytes.push((left % MORE) + MORE)
  bytes.push(left)
}

function* numbersIn(bytes: Uint8Array): Generator<number> {
  let number = 0
  let factor = 1
  for (const byte of bytes) {
    number += (byte % MORE) * factor
    factor *= MORE
    if (byte >= MORE) continue
    yield number
    number = 0
    factor = 1
  }
}

/** Tells in an entry which lines do not count. @param raw their bytes @param count lines of the chunk */
export const deadLines = (dead: OrdinalSet, raw: number, count: number): DeadLines => ({
  docs: dead.size,
  raw,
  lines: encodeLines(dead, count)
})

/** Reads lines that an entry names, if any. @throws DamagedBackupError */
export function linesOf({ id, docs }: ChunkEntry, text: string | undefined): OrdinalSet {
  if (text === undefined) return new OrdinalSet()
  try {
    return decodeLines(text, docs)
  } catch {
    throw new DamagedBackupError('chunk', id, 'is listed with lines beyond its last')
  }
}

/** Returns how many documents that count had conflicting revisions. */
export function liveConflicts(entry: ChunkEntry): number {
  if (entry.conflicts === undefined) return 0
  const conflicts = linesOf(entry, entry.conflicts)
  if (!entry.dead) return conflicts.size
  const dead = linesOf(entry, entry.dead.lines)
  let count = 0
  for (let line = 0; line < entry.docs; line++) if (conflicts.has(line) && !dead.has(line)) count++
  return count
}
