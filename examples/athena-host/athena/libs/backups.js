// backups.js - athena's database backups, made by the plugin fastify-couchdb-backups.
// Replaces libs/db_backup.js and routes/db_backups_apis.js.
const { Readable } = require('node:stream')
const { inspect } = require('node:util')
const { deflateSync } = require('node:zlib')
const { default: Fastify } = require('fastify')
const nano = require('nano')
const { dbBackups, createCouchWebhookStore } = require('fastify-couchdb-backups')

/** Size limit of athena's body parsers. */
const MAX_SIGNED = '25mb'
/** athena's status when it finds nothing, which is no failure. */
const NOTHING_THERE = 222

module.exports = (logger, ev, t) => {
  /** Requests that athena's middleware has authorized, with their scheme. */
  const permitted = new WeakMap()
  /** Bodies of signed requests, which had to be read to verify the signature. */
  const signed = new WeakMap()

  let scope
  const couch = () => {
    scope ??= nano(ev.DB_CONNECTION_STRING)
    return scope
  }
  const fastify = Fastify({
    loggerInstance: log_adapter(),
    routerOptions: { caseSensitive: false, ignoreTrailingSlash: true } // match paths as Express does
  })

  fastify.addHook('preParsing', async ({ raw }, _reply, payload) => {
    const body = signed.get(raw)
    if (body === undefined || raw.method === 'GET') return payload
    const length = raw.headers['content-length']
    return Object.assign(Readable.from(body.length > 0 ? [body] : []), {
      receivedEncodedLength: length === undefined ? undefined : Number(length)
    })
  })

  // athena creates the notification when the request ends, and adds the user, the api, the tx_id and the user agent
  fastify.addHook('preSerialization', async ({ raw }, { statusCode }, payload) => {
    if (raw.method === 'POST' && statusCode === 202)
      t.notifications.procrastinate(raw, { message: `starting db backup '${payload.id}'` })
    return payload
  })

  fastify.register(dbBackups, {
    couch,
    databases: () => ({ components: ev.DB_COMPONENTS, sessions: ev.DB_SESSIONS, system: ev.DB_SYSTEM }),
    publicUrl: () => ev.HOST_URL,
    // each night at 01:00 UTC, unless there is a backup of the last 12 hours
    schedule: 'athena',
    settingsDocuments: [process.env.SETTINGS_DOC_ID || '00_settings_athena'],
    versions: () => t.ot_misc.parse_versions() || {},
    webhooks: broadcasting(createCouchWebhookStore({ couch, database: ev.DB_SYSTEM })),
    authorize({ raw }, { scheme }) {
      if (permitted.get(raw) !== scheme) throw Object.assign(new Error('unauthorized'), { statusCode: 401 })
      return {
        name: t.misc.censorEmail(t.middleware.getEmail(raw)),
        uuid: t.middleware.getUuid(raw) || undefined
      }
    },
    rebuildWhitelist
  })

  /** Rebuilds the white list. Without components athena reports an error though there is nothing to rebuild. */
  async function rebuildWhitelist() {
    try {
      await to_promise((cb) => t.component_lib.rebuildWhiteList({}, cb))
    } catch (error) {
      if (error.statusCode !== NOTHING_THERE) throw error
    }
  }

  /** Wraps a store so that browsers are told of each change of a transaction. */
  function broadcasting(store) {
    const broadcast = (tx) =>
      t.wss1_athena?.broadcast({
        type: 'webhook_tx',
        id: tx.tx_id,
        status: tx.status,
        message: tx.description,
        ts_display: tx.status === 'pending' ? tx.ts_started : tx.ts_completed,
        ts_started: tx.ts_started,
        ts_completed: tx.ts_completed,
        on_step: tx.on_step,
        total_steps: tx.total_steps,
        by: tx.by,
        sub_type: tx.sub_type
      })
    return {
      async create(tx) {
        await store.create(tx)
        broadcast(tx)
      },
      async update(tx_id, update) {
        const tx = await store.update(tx_id, update)
        broadcast(tx)
        return tx
      },
      get: (tx_id) => store.get(tx_id)
    }
  }

  /** Returns the last handler of a route, behind athena's middleware. */
  const hand_over = (scheme) => (req, res) => {
    permitted.set(req, scheme)
    fastify.routing(req, res)
  }

  /**
   * Returns the routes, for `app.use` before the body parsers. Paths are strings, since athena's log and metrics look in
   * them for what to mask. Other methods and paths go on to athena's own 404, and Express answers OPTIONS.
   */
  function routes() {
    const router = t.express.Router()
    const add = (base, scheme, ...before) => {
      const handlers = [...before, hand_over(scheme)]
      // the longest path first, since athena masks by the first path that matches
      const attachment = `${base}/backups/:backup_id/attachments/:att_name`
      const one = `${base}/backups/:backup_id`
      const all = `${base}/backups`
      router.put(attachment, handlers)
      router.get(one, handlers)
      router.put(one, handlers)
      router.get(all, handlers)
      router.put(all, handlers)
      router.post(all, handlers)
    }
    add('/api/v[123]', 'session', t.middleware.verify_settings_action_session)
    add('/ak/api/v[123]', 'api-key', read_signed, t.middleware.verify_settings_action_ak)
    return router
  }

  const parse = t.express?.json({
    limit: MAX_SIGNED,
    verify(req, _res, bytes) {
      signed.set(req, bytes)
    }
  })

  /** Reads the body of a signed request, since the signature covers it. Other bodies stream to the plugin. */
  function read_signed(req, res, next) {
    if (!/^signature /i.test(req.headers.authorization || '')) return next()
    parse(req, res, (error) => {
      if (error) return next(error)
      const { authorize, ...rest } = req.body || {}
      const is_upload = req.method === 'PUT' && !req.params.backup_id
      // pass an upload on as it came, and any other body without what the plugin does not know
      if (!is_upload) signed.set(req, Buffer.from(Object.keys(rest).length > 0 ? JSON.stringify(rest) : ''))
      next()
    })
  }

  /** Closes on a signal: waits for running operations, or stops them and records that, then ends the process. */
  function close_on_signals(server, done = () => process.exit(0)) {
    let closing = false
    const close = async () => {
      server.close()
      await fastify.close()
      server.closeAllConnections()
      done()
    }
    // `on` rather than `once`: without a listener a second signal would end the process at once
    for (const signal of ['SIGTERM', 'SIGINT']) {
      process.on(signal, () => {
        if (closing) return
        closing = true
        close().catch((error) => {
          logger.error('[backup] could not close:', error)
          process.exit(1)
        })
      })
    }
  }

  /** Returns a logger for Fastify that writes to athena's winston logger. */
  function log_adapter(bound = {}) {
    const write =
      (level) =>
      (first, ...rest) => {
        const fields = typeof first === 'object' && first !== null ? { ...bound, ...first } : bound
        // athena itself logs requests
        if (fields.req || fields.res) return
        const text = typeof first === 'object' && first !== null ? rest[0] : first
        const details = inspect(fields, {
          depth: 4,
          breakLength: Number.POSITIVE_INFINITY,
          maxStringLength: 2000
        })
        logger[level](`[backup] ${text ?? ''} ${details}`)
      }
    return {
      level: logger.level || 'info',
      fatal: write('error'),
      error: write('error'),
      warn: write('warn'),
      info: write('info'),
      debug: write('debug'),
      trace: write('silly'),
      silent() {},
      child: (more) => log_adapter({ ...bound, ...more })
    }
  }

  /** The functions of `tools.dbs` that libs/migration_lib.js calls to send a backup to another console. */
  const dbs = {
    athena_backup: (_req, cb) => to_callback(fastify.dbBackups.start(), cb),
    get_backup: (id, cb) => to_callback(in_athena_form(id), cb)
  }

  /** Returns a backup in athena's own form. athena restores databases by these keys only, and takes up to 25 MB. */
  async function in_athena_form(id) {
    const { body } = await fastify.dbBackups.get(id)
    const backup = JSON.parse(Buffer.concat(await body.toArray()).toString())
    const forms = Object.entries(backup.dbs).map(([key, { docs, ...about }]) => [
      key.replace(/^athena_/, 'DB_').toUpperCase(),
      { ...about, compressed_docs: deflateSync(JSON.stringify(docs)).toString('base64') }
    ])
    return { ...backup, dbs: Object.fromEntries(forms) }
  }

  return { fastify, routes, dbs, close_on_signals }
}

/** Turns a callback of athena into a promise. Keeps all that an error says, whatever its shape. */
function to_promise(call) {
  return new Promise((resolve, reject) => {
    call((error, result) => (error ? reject(as_error(error)) : resolve(result)))
  })
}

/** Passes the result of a promise to a callback of athena. */
function to_callback(promise, cb) {
  promise.then(
    (result) => setImmediate(cb, null, result),
    ({ statusCode = 500, message }) => setImmediate(cb, { statusCode, msg: message }, null)
  )
}

function as_error(error) {
  if (error instanceof Error) return error
  const { msg, message, reason, error: name, statusCode } = Object(error)
  const said = [msg ?? message, name, reason].filter((part) => part !== undefined)
  const text = said.map((part) => (typeof part === 'string' ? part : inspect(part))).join(': ')
  return Object.assign(new Error(text || (typeof error === 'string' ? error : inspect(error))), {
    statusCode
  })
}
