// An Express application with the middleware of athena's app.js in the same order, and the backups in their place.
const compression = require('compression')
const express = require('express')

const MAX_SIZE = '25mb'

/**
 * Builds the application.
 * @param tools athena's libraries; middleware among them is called as athena calls it
 */
module.exports.build_app = (logger, ev, tools) => {
  const app = express()
  tools.express = express
  tools.backups = require('./libs/backups.js')(logger, ev, tools)
  tools.dbs = tools.backups.dbs

  app.set('env', 'production')
  app.use(compression())
  app.use(tools.http_metrics.start)
  app.use((_req, res, next) => {
    res.set({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
    next()
  })
  app.use(tools.session)
  app.use((req, res, next) => tools.lockout.reject_if_exceeded(req, res, next))

  // before the body parsers: bodies go to the plugin as streams
  app.use('/', tools.backups.routes())

  app.use(express.text({ type: 'text/plain', limit: MAX_SIZE }))
  app.use(express.json({ limit: MAX_SIZE }))
  app.use(express.urlencoded({ extended: true, limit: MAX_SIZE }))
  app.use((error, _req, res, _next) => {
    res.status(400).json({ statusCode: 400, msg: 'input error', details: String(error) })
  })

  app.use('/', tools.other_routes(express.Router()))
  tools.http_metrics.set_wildcard_routes(app)
  app.use(['/ak/api', '/api'], (_req, res) =>
    res.status(404).json({ statusCode: 404, msg: 'route not found' })
  )
  return app
}

/** Listens once the plugin is ready, until the process gets a signal to end. */
module.exports.start_app = async (app, tools, port, done) => {
  let httpServer = null
  function setup_tls_and_start_app(_attempt) {
    httpServer = app.listen(port, '127.0.0.1')
    httpServer.requestTimeout = 0
    tools.backups.close_on_signals(httpServer, done)
  }
  await tools.backups.fastify.ready().then(() => setup_tls_and_start_app(1))
  return httpServer
}
