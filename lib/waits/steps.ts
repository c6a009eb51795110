import { setImmediate as turn } from 'node:timers/promises'
import { slicesOf } from '../bytes/views.js'

/** Milliseconds of steps in one turn of the event loop. */
const SLICE = 5
/** Bytes of a document from which each walk over it has its own turn: 8 MB take about 10 ms. */
export const LONG = 256 * 1024

/** Work that yields, at least every millisecond or two, where it may be interrupted. */
export type Steps<T> = Generator<undefined, T>

/** Does all steps in this turn. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/** Does the steps in as many turns of the event loop as they take; short work is done in this turn. */
export async function inTurns<T>(steps: Steps<T>): Promise<T> {
  let since = performance.now()
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
    if (performance.now() - since < SLICE) continue
    await turn()
    since = performance.now()
  }
}

/** Does the steps of a walk over `bytes`, synchronously if these are short, as most documents are. */
export const inTurnsIfLong = <T>(bytes: Uint8Array, steps: Steps<T>): T | Promise<T> =>
  bytes.length > LONG ? inTurns(steps) : atOnce(steps)

/** Lets others run after a walk over long bytes; returns nothing to wait for after short ones. */
export const turnAfter = (bytes: { length: number }): Promise<void> | undefined =>
  bytes.length > LONG ? turn() : undefined

/** When shared work began in this turn of the event loop. */
let sharedSince: number | undefined
/** Callbacks that wait for a further turn, first come first. */
const waiting: (() => void)[] = []

/**
 * Lets the event loop go on once all callers together took {@link SLICE} in this turn; before, there is
 * nothing to wait for. Call it before each millisecond or so of work.
 */
export function sharedTurn(): Promise<void> | undefined {
  if (sharedSince === undefined) beginShared()
  else if (performance.now() - sharedSince >= SLICE) return new Promise((resolve) => waiting.push(resolve))
  return undefined
}

function beginShared(): void {
  sharedSince = performance.now()
  setImmediate(() => {
    sharedSince = undefined
    const next = waiting.shift()
    if (!next) return
    beginShared()
    next()
  })
}

/** Bytes that are scanned at a time: escapes, the slowest, take about a millisecond. */
const SCANNED = 32 * 1024

/** Cuts pieces so that others have turns between the parts, see {@link sharedTurn}. */
export async function* inSharedTurns(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    for (const slice of slicesOf(piece, SCANNED)) {
      await sharedTurn()
      yield slice
    }
  }
}
