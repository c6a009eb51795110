// @ts-check
/** @import { RequestHandler, Response } from 'express' */
/** @import { Environment, Middleware, Role, Tools } from '../types.js' */

const SETTINGS_ACTION = 'blockchain.optools.settings'
const VIEW_ACTION = 'blockchain.optools.view'

/** @type {Record<Role, string[]>} */
const ROLES_TO_ACTIONS = { manager: [SETTINGS_ACTION, VIEW_ACTION], reader: [VIEW_ACTION] }

/**
 * Returns chains of middleware that authorize requests, by the action that a route requires and by the credentials of
 * its clients.
 * @param {Environment} ev
 * @param {Pick<Tools, 'couch_lib' | 'misc'>} t
 * @returns {Middleware}
 */
module.exports = (ev, t) => {
  /** @returns {RequestHandler} */
  const need = (/** @type {string} */ action) => (req, _res, next) => {
    req.actions = [action]
    next()
  }

  const user_of = (/** @type {Express.Request} */ req) => {
    const email = req.session?.couchdb_profile?.email
    return email !== undefined && Object.hasOwn(ev.ACCESS_LIST, email) ? ev.ACCESS_LIST[email] : undefined
  }

  /** @type {RequestHandler} */
  const check_authentication = (req, res, next) => {
    if (user_of(req)) next()
    else res.status(401).json({ error: 'log in first' })
  }

  /** @type {RequestHandler} */
  const permit_action = (req, res, next) => {
    if (is_permitted(user_of(req)?.roles, req)) next()
    else res.status(403).json({ authorized: false, error: 'not permitted', attempted_actions: req.actions })
  }

  /**
   * Authorizes an API key, whose id and secret come as HTTP basic credentials.
   * @type {RequestHandler}
   */
  const allow_ak_to_do_action = (req, res, next) => {
    const basic = /^Basic ([\w+/=-]+)$/i.exec(req.headers.authorization ?? '')?.[1] ?? ''
    const [, name, secret] = /^([\w-]+):(.+)$/.exec(Buffer.from(basic, 'base64').toString()) ?? []
    if (!name || name.startsWith('_')) return unauthorized(res)
    t.couch_lib.getDoc({ db_name: ev.DB_SYSTEM, _id: name }, (error, doc) => {
      if (error && error.statusCode !== 404) return res.status(503).json(error)
      const key = /** @type {any} */ (doc)
      if (key?.type !== 'api_key_doc' || !t.misc.verify_api_secret(secret, key.hashed_secret)) {
        return unauthorized(res)
      }
      // refuse a key without the action like a wrong key
      if (!is_permitted(key.roles, req)) return unauthorized(res)
      req.using_api_key = name
      next()
    })
  }

  const session = (/** @type {string} */ action) => [need(action), check_authentication, permit_action]
  const ak = (/** @type {string} */ action) => [need(action), allow_ak_to_do_action]

  return {
    verify_settings_action_session: session(SETTINGS_ACTION),
    verify_settings_action_ak: ak(SETTINGS_ACTION),
    verify_view_action_session: session(VIEW_ACTION),
    verify_view_action_ak: ak(VIEW_ACTION),
    getEmail: (req) => req.using_api_key ?? req.session?.couchdb_profile?.email,
    getUuid: (req) => (req.using_api_key ? undefined : user_of(req)?.uuid)
  }
}

/** @param {Role[] | undefined} roles */
function is_permitted(roles = [], /** @type {Express.Request} */ { actions = [] }) {
  return actions.every((action) => roles.some((role) => ROLES_TO_ACTIONS[role]?.includes(action)))
}

function unauthorized(/** @type {Response} */ res) {
  res.set('www-authenticate', 'Basic').status(401).send('Unauthorized')
}
