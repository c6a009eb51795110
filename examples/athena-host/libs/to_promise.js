// @ts-check
/** @import { Callback } from '../types.js' */

/**
 * Awaits a function of this host, whose errors are plain objects, and rejects with an `Error`.
 * @template T
 * @param {(cb: Callback<T>) => void} call
 * @returns {Promise<T>}
 */
module.exports = (call) =>
  new Promise((resolve, reject) => {
    call((error, result) => {
      if (error === null) return resolve(result)
      reject(Object.assign(new Error(error.reason ?? error.error), { statusCode: error.statusCode }))
    })
  })
