// @ts-check
/** @import { CouchLib, Environment } from '../types.js' */
const { Store } = require('express-session')

const EXPIRE_MS = 8 * 60 * 60 * 1000

/** Keeps sessions in the sessions database, as documents of a type that backups leave out. */
module.exports = class CouchSessionStore extends Store {
  #opts
  #couch_lib

  /**
   * @param {Environment} ev
   * @param {CouchLib} couch_lib
   */
  constructor(ev, couch_lib) {
    super()
    this.#opts = (/** @type {string} */ sid) => ({ db_name: ev.DB_SESSIONS, _id: `s${sid}` })
    this.#couch_lib = couch_lib
  }

  /** @type {Store['get']} */
  get(sid, cb) {
    this.#couch_lib.getDoc(this.#opts(sid), (error, doc) => {
      if (error) return error.statusCode === 404 ? cb(null, null) : cb(error)
      const { expires, sess } = /** @type {any} */ (doc)
      cb(null, expires > Date.now() ? sess : null)
    })
  }

  /** @type {Store['set']} */
  set(sid, sess, cb = () => {}) {
    const opts = this.#opts(sid)
    const doc = { _id: opts._id, type: 'session_athena', sess, expires: Date.now() + EXPIRE_MS }
    this.#couch_lib.getDoc(opts, (error, current) => {
      if (error && error.statusCode !== 404) return cb(error)
      this.#couch_lib.writeDoc(opts, current ? { ...doc, _rev: current._rev } : doc, (error, _doc) =>
        cb(error)
      )
    })
  }

  /** @type {Store['destroy']} */
  destroy(sid, cb = () => {}) {
    this.#couch_lib.deleteDoc(this.#opts(sid), (error, _) => cb(error?.statusCode === 404 ? null : error))
  }
}
