// @ts-check
/** @import { Callback, CouchLib, Environment } from '../types.js' */

/**
 * Copies the settings document into `ev`, at the start and after a restore.
 * @param {Environment} ev
 * @param {CouchLib} couch_lib
 * @param {Callback} cb
 */
module.exports.update = (ev, couch_lib, cb) => {
  couch_lib.getDoc({ db_name: ev.DB_SYSTEM, _id: ev.SETTINGS_DOC_ID }, (error, doc) => {
    if (error) return cb(error, undefined)
    const { access_list, url_safe_list } = /** @type {any} */ (doc)
    ev.ACCESS_LIST = access_list ?? {}
    ev.URL_SAFE_LIST = url_safe_list ?? []
    cb(null, undefined)
  })
}
