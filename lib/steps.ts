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
