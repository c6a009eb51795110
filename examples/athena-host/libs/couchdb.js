// @ts-check
/** @import { Callback, CouchLib, Document, HostError } from '../types.js' */

const MAX_ATTEMPTS = 5

/**
 * Returns the host's own library for CouchDB.
 * @param {string} connection_string URL of the server, with credentials
 * @returns {CouchLib}
 */
module.exports = (connection_string) => {
  const { username, password, origin, pathname } = new URL(connection_string)
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  const authorization = username
    ? { authorization: `Basic ${Buffer.from(credentials).toString('base64')}` }
    : undefined

  /**
   * @param {string} method
   * @param {string[]} path
   * @param {{ body?: object, query?: string }} [options]
   */
  async function request(method, path, { body, query = '' } = {}) {
    const url =
      origin + pathname.replace(/\/$/, '') + path.map((part) => `/${encodeURIComponent(part)}`).join('')
    const response = await fetch(url + query, {
      method,
      body: body && JSON.stringify(body),
      headers: { accept: 'application/json', 'content-type': 'application/json', ...authorization },
      signal: AbortSignal.timeout(30_000)
    })
    const answer = /** @type {any} */ (await response.json())
    if (!response.ok) throw Object.assign(answer, { statusCode: response.status })
    return answer
  }

  /**
   * @template T
   * @param {Promise<T>} promise
   * @param {Callback<T>} cb
   */
  function answer(promise, cb) {
    promise.then(
      (result) => setImmediate(cb, null, result),
      (error) => setImmediate(cb, to_host_error(error), undefined)
    )
  }

  /** @returns {Promise<Document>} */
  const get = (/** @type {string} */ db_name, /** @type {string} */ id) => request('GET', [db_name, id])

  /** @returns {Promise<Document>} */
  const put = async (/** @type {string} */ db_name, /** @type {Document} */ doc) => {
    const { rev } = await request('PUT', [db_name, doc._id], { body: doc })
    return { ...doc, _rev: rev }
  }

  /** @type {(db_name: string, id: string, modify: (doc: Document) => Document) => Promise<Document>} */
  const modify_doc = async (db_name, id, modify) => {
    for (let attempt = 1; ; attempt++) {
      const doc = await get(db_name, id)
      try {
        return await put(db_name, modify(doc))
      } catch (error) {
        if (to_host_error(error).statusCode !== 409 || attempt === MAX_ATTEMPTS) throw error
      }
    }
  }

  return {
    getDoc: ({ db_name, _id }, cb) => answer(get(db_name, _id), cb),
    getAllDocs: ({ db_name }, cb) =>
      answer(
        request('GET', [db_name, '_all_docs'], { query: '?include_docs=true' }).then(({ rows }) =>
          rows.map((/** @type {{ doc: Document }} */ { doc }) => doc)
        ),
        cb
      ),
    writeDoc: ({ db_name }, doc, cb) => answer(put(db_name, doc), cb),
    deleteDoc: ({ db_name, _id }, cb) =>
      answer(
        get(db_name, _id).then(({ _rev }) => request('DELETE', [db_name, _id], { query: `?rev=${_rev}` })),
        cb
      ),
    repeatWriteSafe: ({ db_name, _id }, modify, cb) => answer(modify_doc(db_name, _id, modify), cb)
  }
}

/** @returns {HostError} */
function to_host_error(/** @type {any} */ error) {
  if (!(error instanceof Error)) return error
  return { statusCode: 503, error: 'unavailable', reason: `the database does not answer: ${error.message}` }
}
