// @ts-check
const { randomBytes } = require('node:crypto')
const { once } = require('node:events')
const { startEmbeddedCouch } = require('../standalone/embedded-couch.js')
const { build_app } = require('./app.js')
const { create_databases } = require('./scripts/create_databases.js')
const settings = require('./libs/settings.js')
const to_promise = require('./libs/to_promise.js')

/** Starts the host on `COUCHDB_URL`, or on a database in memory. */
async function main() {
  const { COUCHDB_URL, PORT = '3000', DB_PREFIX = 'athena' } = process.env
  const embedded = COUCHDB_URL ? undefined : await startEmbeddedCouch({ memory: true })
  const url = embedded?.url ?? COUCHDB_URL ?? ''
  /** @type {import('./types.js').Environment} */
  const ev = {
    DB_CONNECTION_STRING: url,
    DB_COMPONENTS: `${DB_PREFIX}_components`,
    DB_SESSIONS: `${DB_PREFIX}_sessions`,
    DB_SYSTEM: `${DB_PREFIX}_system`,
    HOST_URL: process.env.HOST_URL ?? `http://127.0.0.1:${PORT}`,
    SESSION_SECRET: process.env.SESSION_SECRET ?? randomBytes(32).toString('hex'),
    SETTINGS_DOC_ID: '00_settings_athena',
    HTTP_TIMEOUT: 120_000,
    TRUST_PROXY: process.env.TRUST_PROXY,
    LOG_LEVEL: process.env.LOG_LEVEL ?? 'warn',
    ACCESS_LIST: {},
    URL_SAFE_LIST: []
  }
  const created = await create_databases(ev)
  const couch_lib = require('./libs/couchdb.js')(url)
  await to_promise((cb) => settings.update(ev, couch_lib, cb))

  const host = await build_app(ev, couch_lib)
  host.server.listen(Number(PORT), '127.0.0.1')
  await once(host.server, 'listening')
  const stop = async () => {
    await host.close()
    await embedded?.close()
  }
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => stop().catch(fail))
  }
  console.log(`${ev.HOST_URL}/ak/api/v3/backups`)
  for (const { login, key } of created ?? []) console.log(`login ${login}\nkey   ${key}`)
}

function fail(/** @type {unknown} */ error) {
  console.error(error)
  process.exit(1)
}

main().catch(fail)
