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
 * Polls a path, and what the server runs under the id, until `isOver`, also while the server or the database does not
 * answer.
 * @throws ApiError when the server refuses, or the reason that `signal` was aborted with
 */
async function follow(path, id, isOver, { signal, onUpdate, onTrouble }) {
  for (let round = 0; ; round++) {
    signal?.throwIfAborted()
    try {
      const [state, { running }] = await Promise.all([
        call('GET', path, { signal }),
        call('GET', '/running', { signal })
      ])
      onUpdate(
        state,
        running.find((operation) => operation.id === id)
      )
      if (isOver(state)) return state
    } catch (error) {
      if (!(error instanceof ApiError) || ![0, 502, 503].includes(error.status)) throw error
      onTrouble(error)
    }
    await pause(waitOf(round), signal)
  }
}

export const followBackup = (id, options) =>
  follow(`/backups/${id}`, id, (backup) => !backup.in_progress, options)

export const followTransaction = (txId, options) =>
  follow(`/restores/${txId}`, txId, (transaction) => transaction.status !== 'pending', options)
