// @ts-check
/** @import { Environment, Document, Tools } from '../types.js' */
/** @import { WebhookTransaction } from '../../../types/index.js' */
const to_promise = require('./to_promise.js')

/**
 * Keeps the host's webhook documents, one for each long operation, and tells the browsers when one changes.
 * @param {Environment} ev
 * @param {Pick<Tools, 'couch_lib' | 'broadcast'>} t
 * @returns {Tools['webhook']}
 */
module.exports = (ev, t) => {
  const opts_for = (/** @type {string} */ tx_id) => ({ db_name: ev.DB_SYSTEM, _id: tx_id })

  const tell = (/** @type {any} */ { tx_id, status, description, on_step, total_steps, by }) =>
    t.broadcast({ type: 'webhook_tx', id: tx_id, status, message: description, on_step, total_steps, by })

  /** @returns {WebhookTransaction} */
  const transaction_of = (/** @type {Document} */ { _id, _rev, ...doc }) => /** @type {any} */ (doc)

  return {
    store: {
      async create(transaction) {
        const doc = { _id: transaction.tx_id, ...transaction }
        await to_promise((cb) => t.couch_lib.writeDoc(opts_for(doc._id), doc, cb))
        tell(doc)
      },
      async update(tx_id, update) {
        const modify = (/** @type {Document} */ doc) => ({ ...doc, ...update, ts_last_updated: Date.now() })
        const doc = await to_promise((cb) => t.couch_lib.repeatWriteSafe(opts_for(tx_id), modify, cb))
        tell(doc)
        return transaction_of(doc)
      },
      async get(tx_id) {
        try {
          const doc = await to_promise((cb) => t.couch_lib.getDoc(opts_for(tx_id), cb))
          return doc.type === 'webhook_tx' ? transaction_of(doc) : null
        } catch (error) {
          if (/** @type {any} */ (error).statusCode === 404) return null
          throw error
        }
      }
    },

    get_webhook(tx_id, cb) {
      t.couch_lib.getDoc(opts_for(tx_id), (error, doc) => {
        if (error) return cb(error, undefined)
        if (doc.type !== 'webhook_tx')
          return cb({ statusCode: 404, error: 'not_found', reason: 'missing' }, undefined)
        cb(null, redact(doc))
      })
    }
  }
}

/** Returns what clients may see of a webhook document. The client's webhook may contain secrets. */
function redact(/** @type {any} */ { _id, _rev, type, timeout_ms, client_webhook_url, ...doc }) {
  return { ...doc, message: doc.athena_messages?.at(-1) ?? null }
}
