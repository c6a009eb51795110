import { DamagedBackupError } from '../errors.js'
import { OrdinalSet } from '../ids/ordinal-set.js'
import type { ChunkEntry, DeadLines } from './layout.js'

/** Bits of a number in each byte of its stored form. */
const BITS = 7
const MORE = 1 << BITS
/** Begins a stored set: what follows are gaps and runs in turn, or a bit for each line. */
const RUNS = 0
const BITMAP = 1

/** Returns a set of lines among the first `count` as text: base64 of its runs or a bitmap, whatever is shorter. */
export function encodeLines(lines: OrdinalSet, count: number): string {
  const most = 1 + Math.ceil(count / 8)
  const bytes = runsOf(lines, count, most) ?? bitmapOf(lines, count, most)
  return Buffer.from(bytes).toString('base64')
}

/** Reads what {@link encodeLines} returned. @throws RangeError for lines beyond `count` */
export function decodeLines(text: string, count: number): OrdinalSet {
  const [form, ...bytes] = Buffer.from(text, 'base64')
  const lines = new OrdinalSet()
  for (const line of form === RUNS ? linesOfRuns(bytes, count) : linesOfBitmap(bytes)) {
    if (line >= count) throw new RangeError(`a line beyond the last, ${count}`)
    lines.add(line)
  }
  return lines
}

/** @returns `null` when it takes more than so many bytes */
function runsOf(lines: OrdinalSet, count: number, most: number): number[] | null {
  const bytes = [RUNS]
  let run = 0
  let isIn = false
  for (let line = 0; line < count && bytes.length <= most; line++) {
    if (lines.has(line) !== isIn) {
      pushNumber(bytes, run)
      isIn = !isIn
      run = 0
    }
    run++
  }
  // A gap at the end is not told.
  if (isIn) pushNumber(bytes, run)
  return bytes.length <= most ? bytes : null
}

function bitmapOf(lines: OrdinalSet, count: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  bytes[0] = BITMAP
  for (let line = 0; line < count; line++) if (lines.has(line)) bytes[1 + (line >> 3)] |= 1 << (line & 7)
  return bytes
}

function* linesOfRuns(bytes: readonly number[], count: number): Generator<number> {
  let line = 0
  let isIn = false
  for (const run of numbersIn(bytes)) {
    // Also where the rest of a run would take for ever.
    if (isIn) for (let i = 0; i < Math.min(run, count + 1); i++) yield line + i
    line += run
    isIn = !isIn
  }
}

function* linesOfBitmap(bytes: readonly number[]): Generator<number> {
  for (const [i, byte] of bytes.entries())
    for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) yield i * 8 + bit
}

function pushNumber(bytes: number[], number: number): void {
  let left = number
  for (; left >= MORE; left = Math.floor(left / MORE)) bytes.push((left % MORE) + MORE)
  bytes.push(left)
}

function* numbersIn(bytes: readonly number[]): Generator<number> {
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
export const encodeDead = (dead: OrdinalSet, raw: number, count: number): DeadLines => ({
  docs: dead.size,
  raw,
  lines: encodeLines(dead, count)
})

/** Returns the lines of a chunk that do not count. @throws DamagedBackupError */
export const deadLinesOf = (entry: ChunkEntry): OrdinalSet => namedLines(entry, entry.dead?.lines)

/** Returns the lines of a chunk whose documents had conflicting revisions. @throws DamagedBackupError */
export const conflictLinesOf = (entry: ChunkEntry): OrdinalSet => namedLines(entry, entry.conflicts)

function namedLines({ id, docs }: ChunkEntry, text: string | undefined): OrdinalSet {
  if (text === undefined) return new OrdinalSet()
  try {
    return decodeLines(text, docs)
  } catch {
    throw new DamagedBackupError('chunk', id, 'is listed with lines beyond its last')
  }
}

/** Checks that a chunk has as many lines as its entry says. @throws DamagedBackupError */
export function checkLines({ id, docs }: ChunkEntry, lines: number): void {
  if (lines !== docs)
    throw new DamagedBackupError('chunk', id, 'does not hold as many documents as it should')
}

/** Returns how many documents that count had conflicting revisions. */
export function liveConflicts(entry: ChunkEntry): number {
  if (entry.conflicts === undefined) return 0
  return linesWithout(conflictLinesOf(entry), deadLinesOf(entry), entry.docs).size
}

/** Returns those of the first `count` lines that are in one set, and not in another. */
export function linesWithout(lines: OrdinalSet, others: OrdinalSet, count: number): OrdinalSet {
  const left = new OrdinalSet()
  for (let line = 0; line < count; line++) if (lines.has(line) && !others.has(line)) left.add(line)
  return left
}
