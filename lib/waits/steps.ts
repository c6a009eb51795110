import { setImmediate as turn } from 'node:timers/promises'

/** Milliseconds of steps in one turn of the event loop. */
const SLICE = 5
/** Bytes of a document from which each walk over them has a turn of its own: one over 8 MB takes some 10 ms. */
const LONG = 256 * 1024

/** Work that yields where it may be interrupted, after a millisecond or two at most where it can. */
export type Steps<T> = Generator<undefined, T>

/** Does all steps in this turn. */
export function atOnce<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next()
    if (step.done) return step.value
  }
}

/** Does the steps in as many turns of the event loop as they take. What is short is done in this one. */
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

/** Lets others run after a walk over long bytes. Returns nothing to wait for after short ones. */
export const turnAfter = (bytes: Uint8Array): Promise<void> | undefined =>
  bytes.length > LONG ? turn() : undefined

/** When work that is shared began in this turn of the event loop; `undefined` when it has not. */
let sharedSince: number | undefined
/** Continue what waits for a further turn, first come first. */
const waiting: (() => void)[] = []

/**
 * Lets the event loop go on once the work of all callers has taken {@link SLICE} in this turn. Each of many requests that
 * did so by itself would add a slice of its own to the same turn. Call it before each millisecond or so of work.
 *
 * @returns nothing to wait for while there is time left
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
