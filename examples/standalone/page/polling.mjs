import { ApiError, call } from './api.mjs'

/** Milliseconds between two looks: soon after the start, then at leisure. */
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
 * Reads until `isOver`. A server or database that does not answer is asked again.
 * @throws ApiError when the server refuses; what `signal` was aborted with
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
  follow(`/operator/backups/${id}`, (backup) => !backup.in_progress, options)

export const followTransaction = (txId, options) =>
  follow(`/webhooks/txs/${txId}`, (transaction) => transaction.status !== 'pending', options)
