import { setTimeout as sleep } from 'node:timers/promises'
import { LinkedAbort } from '../waits/linked-abort.js'
import { expected, isCouchError } from './errors.js'

/** Milliseconds between two looks for what a request was to write. */
const LOOK_INTERVAL = 500

/** A write that can be recognized in the database. */
export interface FindableWrite<T> {
  /** Sends one request, which calls `sent` when its body has left, and ends with `deadline`. */
  send(sent: () => void, deadline: AbortSignal): Promise<T>
  /** Reads what a request before may have written; `null` when it is not there. One attempt. */
  find(): Promise<T | null>
  /** Milliseconds to wait for the answer when the body has been sent. */
  patience: number
}

/** Sends a write once, and looks for it while CouchDB does not answer. @throws CouchError: outcome unknown */
export async function sendOrFind<T>({ send, find, patience }: FindableWrite<T>): Promise<T> {
  const deadline = new LinkedAbort()
  let sent = () => {}
  const bodySent = new Promise<void>((resolve) => {
    sent = resolve
  })
  const answer = send(sent, deadline.signal)
  const answered = answer.then(
    () => true,
    () => true
  )
  const pause = () => sleep(LOOK_INTERVAL, false, { signal: deadline.signal }).catch(() => false)
  try {
    await Promise.race([bodySent, answered])
    deadline.after(patience, () => new Error('the database did not answer in time'))
    while (!(await Promise.race([answered, pause()]))) {
      // A failed look tells nothing; the request is still awaited.
      const found = await find().catch(expected(isCouchError, null))
      if (found !== null) return found
    }
    return await answer
  } finally {
    deadline.release()
    deadline.abort()
  }
}
