// @ts-check
/** @import { Request } from 'express' */
/** @import { Environment, Scheme, Tools } from '../types.js' */
const { default: Fastify } = require('fastify')
const nano = require('nano')
// in a project of your own: require('fastify-couchdb-backups')
const { dbBackups } = require('../../../lib/index.js')
// and require('fastify-couchdb-backups/operator')
const { operator } = require('../../../lib/operator/index.js')
const { version } = require('../../../package.json')
const settings = require('./settings.js')
const to_promise = require('./to_promise.js')

/**
 * Registers the plugin with the hooks of this host, on a Fastify instance that does not listen.
 * @param {Environment} ev
 * @param {Tools} t
 * @returns {Tools['backups']}
 */
module.exports = (ev, t) => {
  /**
   * Requests that the host's middleware has authorized, with their scheme.
   * @type {WeakMap<object, Scheme>}
   */
  const permitted = new WeakMap()

  const fastify = Fastify({
    logger: { level: ev.LOG_LEVEL },
    // match paths as Express does
    routerOptions: { caseSensitive: false, ignoreTrailingSlash: true }
  })

  /** @type {import('../../../types/index.js').Authorize} */
  const authorize = ({ raw }, { scheme }) => {
    if (permitted.get(raw) !== scheme) throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
    const req = /** @type {Request} */ (raw)
    return { name: t.misc.censorEmail(t.middleware.getEmail(req)), uuid: t.middleware.getUuid(req) }
  }

  fastify.register(dbBackups, {
    couch: nano(ev.DB_CONNECTION_STRING),
    databases: { components: ev.DB_COMPONENTS, sessions: ev.DB_SESSIONS, system: ev.DB_SYSTEM },
    publicUrl: ev.HOST_URL,
    versions: { tag: version },
    webhooks: t.webhook.store,
    authorize,
    async rebuildWhitelist() {
      try {
        await to_promise((cb) => t.component_lib.rebuildWhiteList({}, cb))
      } catch (error) {
        // athena reports this status when there are no components, which is no failure
        if (/** @type {any} */ (error).statusCode !== 222) throw error
      }
      // the restore may have changed the settings
      await to_promise((cb) => settings.update(ev, t.couch_lib, cb))
    },
    onEvent: (event) => {
      if (event.type === 'backup_failed' || event.type === 'restore_failed')
        t.broadcast({ type: 'notification', message: `${event.type}: ${event.error.message}` })
    }
  })

  fastify.register(operator, {
    prefix: '/backups',
    authorize,
    signIn: {
      login: { path: '/api/v3/auth/login', password: 'pass' },
      logout: { path: '/api/v3/auth/logout', method: 'GET' }
    }
  })

  return {
    fastify,
    /** Hands over requests that need no authorization: for the operator page's files. */
    hand_over_files: (req, res) => fastify.routing(req, res),
    /** Returns the last handler of a route, behind the middleware that authorizes requests. */
    hand_over: (scheme) => (req, res) => {
      permitted.set(req, scheme)
      fastify.routing(req, res)
    }
  }
}
