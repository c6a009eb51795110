// @ts-check
/** @import { Environment, Role } from '../types.js' */
const { randomBytes } = require('node:crypto')
const nano = require('nano')
const { hash_api_secret, salt_password } = require('../libs/misc.js')

/** @type {Record<string, Role>} */
const USERS = { 'admin@example.com': 'manager', 'reader@example.com': 'reader' }

/**
 * Creates missing databases and, unless there is a settings document, one with users, and API keys.
 * @param {Environment} ev
 * @returns {Promise<{ login: string, key: string }[] | undefined>} `name:secret` of a manager and of a reader;
 *   `undefined` when there were settings before
 */
module.exports.create_databases = async (ev) => {
  const couch = nano(ev.DB_CONNECTION_STRING)
  for (const name of [ev.DB_COMPONENTS, ev.DB_SESSIONS, ev.DB_SYSTEM]) {
    await couch.db.create(name).catch((error) => {
      if (error.statusCode !== 412) throw error
    })
  }
  const system = couch.use(ev.DB_SYSTEM)
  if ((await system.list({ keys: [ev.SETTINGS_DOC_ID] }).catch(() => null))?.rows[0]?.value) return

  /** @type {Environment['ACCESS_LIST']} */
  const access_list = {}
  const created = []
  for (const [email, role] of Object.entries(USERS)) {
    const [password, id, secret] = [random(9), `k${random(8)}`, random(24)]
    access_list[email] = { uuid: random(8), roles: [role], ...salt_password(password) }
    const hashed_secret = hash_api_secret(secret)
    const key = { type: 'api_key_doc', roles: [role], hashed_secret, ts_created: Date.now() }
    await system.insert(/** @type {object} */ (key), id)
    created.push({ login: `${email}:${password}`, key: `${id}:${secret}` })
  }
  const settings = { type: 'settings', access_list, url_safe_list: [] }
  await system.insert(/** @type {object} */ (settings), ev.SETTINGS_DOC_ID)
  return created
}

const random = (/** @type {number} */ bytes) => randomBytes(bytes).toString('hex')
