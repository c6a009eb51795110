import { ApiError, call } from './api.mjs'

/** Returns the milliseconds before the next request: few at first, so that short operations show their end at once. */
const waitOf = (round) => (round < 8 ? 250 : 1000)

const pause = (ms, signal) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms)
    signal?.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason)
    })
  })

/**
 * Reads a path again and again until `isOver`, even while the server or the database does not answer.
 * @throws ApiError when the server refuses, or the reason that `signal` was aborted with
 */
async function follow(path, isOver, { signal, onUpdate, onTrouble }) {
  for (let round = 0; ; round++) {
    signal?.throwIfAborted()
    try {
      const state = await call('GET', path, { signal })
      onUpdate(state)
      if (isOver(state)) return state
    } catch (error) {
      if (!(error instanceof ApiError) || ![0, 502, 503].includes(error.status)) throw error
      onTrouble(error)
    }
    await pause(waitOf(round), signal)
  }
}

export const followBackup = (id, options) =>
  follow(`/backups/${id}`, (backup) => !backup.in_progress, options)

export const followTransaction = (txId, options) =>
  follow(`/restores/${txId}`, (transaction) => transaction.status !== 'pending', options)
