// @ts-check
/** @import { ErrorRequestHandler } from 'express' */
/** @import { CouchLib, Environment, Tools } from './types.js' */
const { once } = require('node:events')
const http = require('node:http')
const compression = require('compression')
const express = require('express')
const session = require('express-session')
const CouchSessionStore = require('./libs/session_store.js')

const MAX_SIZE = '100kb'
const BACKUPS = /^\/api\/v[123]\/backups(\/|$)/i
/** Routes of the operator plugin, and its page. */
const OPERATOR = /^\/backups\/api(\/|$)/i
const OPERATOR_PAGE = /^\/backups(\/|$)/i
const AK_BACKUPS = /^\/ak\/api\/v[123]\/backups(\/|$)/i

/**
 * Builds an Express 4 application that hands its backup routes to the plugin.
 * @param {Environment} ev
 * @param {CouchLib} couch_lib
 * @param {(message: object) => void} broadcast
 */
module.exports.build_app = async (ev, couch_lib, broadcast = () => {}) => {
  const app = express()
  const tools = /** @type {Tools} */ ({ couch_lib, broadcast, misc: require('./libs/misc.js') })
  tools.middleware = require('./libs/middleware.js')(ev, tools)
  tools.webhook = require('./libs/webhook_lib.js')(ev, tools)
  tools.component_lib = require('./libs/component_lib.js')(ev, tools)
  tools.backups = require('./libs/backups.js')(ev, tools)

  app.disable('x-powered-by')
  if (ev.TRUST_PROXY) app.set('trust proxy', ev.TRUST_PROXY)
  app.use(compression())
  app.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
    next()
  })
  app.use(
    session({
      secret: ev.SESSION_SECRET,
      store: new CouchSessionStore(ev, couch_lib),
      name: 'console_session',
      resave: false,
      saveUninitialized: false,
      cookie: { httpOnly: true, sameSite: 'lax', secure: ev.HOST_URL.startsWith('https:') }
    })
  )

  // before the body parsers, since the plugin reads an upload as a stream
  app.all(BACKUPS, tools.middleware.verify_settings_action_session, tools.backups.hand_over('session'))
  app.all(AK_BACKUPS, tools.middleware.verify_settings_action_ak, tools.backups.hand_over('api-key'))

  // the command line has an API key, the page a session
  const with_key = express
    .Router()
    .use(tools.middleware.verify_settings_action_ak, tools.backups.hand_over('api-key'))
  app.all(OPERATOR, (req, res, next) => (req.headers.authorization ? with_key(req, res, next) : next()))
  app.all(OPERATOR, tools.middleware.verify_settings_action_session, tools.backups.hand_over('session'))
  app.get(OPERATOR_PAGE, tools.backups.hand_over_files)

  app.use(express.json({ limit: MAX_SIZE }))
  app.use(express.urlencoded({ extended: true, limit: MAX_SIZE }))

  app.use(require('./routes/authentication.js')(ev, tools))
  app.use(require('./routes/component_apis.js')(ev, tools))
  app.use(require('./routes/webhook_apis.js')(tools))
  app.use((_req, res) => {
    res.status(404).json({ statusCode: 404, msg: 'route not found' })
  })
  app.use(
    /** @type {ErrorRequestHandler} */ (error, _req, res, _next) => {
      const { status = 500, message } = error
      res.status(status).json({ statusCode: status, msg: status < 500 ? message : 'the request failed' })
    }
  )

  await tools.backups.fastify.ready()
  const server = http.createServer(app)
  server.timeout = ev.HTTP_TIMEOUT
  // by default Node.js ends a request after five minutes, which cuts large uploads; the plugin itself ends stalled ones
  server.requestTimeout = 0

  return {
    server,
    tools,
    backups: tools.backups.fastify,
    /** Waits for running operations, or stops them and records that, then closes the connections. */
    async close() {
      const closed = once(server, 'close')
      server.close()
      await tools.backups.fastify.close()
      server.closeAllConnections()
      await closed
    }
  }
}
