// @ts-check
/** @import { Environment, Tools } from '../types.js' */

const URL_MEMBERS = ['api_url', 'grpcwp_url', 'operations_url', 'osnadmin_url']

/**
 * @param {Environment} ev
 * @param {Pick<Tools, 'couch_lib'>} t
 * @returns {Tools['component_lib']}
 */
module.exports = (ev, t) => ({
  /** Rebuilds the white list from the addresses of the components. */
  rebuildWhiteList(_req, cb) {
    t.couch_lib.getAllDocs({ db_name: ev.DB_COMPONENTS }, (error, docs) => {
      if (error) return cb(error, undefined)
      const urls = docs.flatMap((doc) => URL_MEMBERS.map((member) => doc[member]))
      const hosts = urls.flatMap((url) =>
        typeof url === 'string' && URL.canParse(url) ? new URL(url).host : []
      )
      const url_safe_list = [...new Set(hosts)].sort()
      const opts = { db_name: ev.DB_SYSTEM, _id: ev.SETTINGS_DOC_ID }
      t.couch_lib.repeatWriteSafe(
        opts,
        (doc) => ({ ...doc, url_safe_list }),
        (error, _doc) => {
          if (error) return cb(error, undefined)
          ev.URL_SAFE_LIST = url_safe_list
          cb(null, url_safe_list)
        }
      )
    })
  }
})
