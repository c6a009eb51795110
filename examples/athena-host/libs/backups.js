// @ts-check
/** @import { Request } from 'express' */
/** @import { Environment, Scheme, Tools } from '../types.js' */
const { default: Fastify } = require('fastify')
const nano = require('nano')
// elsewhere: require('fastify-couchdb-backups')
const { dbBackups } = require('../../../lib/index.js')
const { version } = require('../../../package.json')
const settings = require('./settings.js')
const to_promise = require('./to_promise.js')

/**
 * The plugin with the hooks of this host, on a Fastify instance that does not listen.
 * @param {Environment} ev
 * @param {Tools} t
 * @returns {Tools['backups']}
 */
module.exports = (ev, t) => {
  /**
   * Requests that the host's middleware has let through.
   * @type {WeakMap<object, Scheme>}
   */
  const permitted = new WeakMap()

  const fastify = Fastify({
    logger: { level: ev.LOG_LEVEL },
    // as Express matches paths
    routerOptions: { caseSensitive: false, ignoreTrailingSlash: true }
  })

  fastify.register(dbBackups, {
    couch: nano(ev.DB_CONNECTION_STRING),
    databases: { components: ev.DB_COMPONENTS, sessions: ev.DB_SESSIONS, system: ev.DB_SYSTEM },
    publicUrl: ev.HOST_URL,
    versions: { tag: version },
    webhooks: t.webhook.store,
    authorize({ raw }, { scheme }) {
      if (permitted.get(raw) !== scheme) throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
      const req = /** @type {Request} */ (raw)
      return { name: t.misc.censorEmail(t.middleware.getEmail(req)), uuid: t.middleware.getUuid(req) }
    },
    async rebuildWhitelist() {
      try {
        await to_promise((cb) => t.component_lib.rebuildWhiteList({}, cb))
      } catch (error) {
        // athena's status where there are no components: there is nothing to rebuild, which is no failure
        if (/** @type {any} */ (error).statusCode !== 222) throw error
      }
      // the settings have been restored as well
      await to_promise((cb) => settings.update(ev, t.couch_lib, cb))
    },
    onEvent: (event) => {
      if (event.type === 'backup_failed' || event.type === 'restore_failed')
        t.broadcast({ type: 'notification', message: `${event.type}: ${event.error.message}` })
    }
  })

  return {
    fastify,
    /** The last handler of a route whose middleware has authorized the request. */
    hand_over: (scheme) => (req, res) => {
      permitted.set(req, scheme)
      fastify.routing(req, res)
    }
  }
}
