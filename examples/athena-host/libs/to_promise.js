// @ts-check
/** @import { Callback } from '../types.js' */
const { inspect } = require('node:util')

/**
 * Turns a callback of this host into a promise. Rejects with an `Error` that keeps all that the host's error says,
 * whatever its shape.
 * @template T
 * @param {(cb: Callback<T>) => void} call
 * @returns {Promise<T>}
 */
module.exports = (call) =>
  new Promise((resolve, reject) => {
    call((error, result) => {
      if (error) reject(as_error(error))
      else resolve(/** @type {T} */ (result))
    })
  })

/** @returns {Error} */
function as_error(/** @type {any} */ error) {
  if (error instanceof Error) return error
  const { msg, message, error: name, reason, statusCode } = Object(error)
  const said = [msg ?? message, name, reason].filter((part) => part !== undefined)
  const text = said.map((part) => (typeof part === 'string' ? part : inspect(part))).join(': ')
  const whole = typeof error === 'string' ? error : inspect(error)
  return Object.assign(new Error(text || whole), { statusCode })
}
