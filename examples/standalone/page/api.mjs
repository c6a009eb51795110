const BASE = 'api/v2'

/** Dispatches `ended` when the server no longer knows this browser's session. */
export const session = new EventTarget()

/** Reports that the server refused a request, or could not be reached (status 0). */
export class ApiError extends Error {
  constructor(status, { message, reason, code, id } = {}) {
    super(message ?? reason ?? `status ${status}`)
    this.status = status
    this.code = code
    /** Id of the operation that runs already: of a backup, or of a restore's transaction. */
    this.id = id
  }
}

/**
 * Sends a request with a JSON body, or none, and returns the JSON reply.
 * @throws ApiError, or the reason that `signal` was aborted with
 */
export async function call(method, path, { body, signal } = {}) {
  let response
  try {
    response = await fetch(BASE + path, {
      method,
      signal,
      cache: 'no-store',
      ...(body === undefined
        ? {}
        : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
    })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError(0)
  }
  return parseReply(path, response.status, await response.text())
}

/**
 * Uploads a file. Uses XMLHttpRequest, since fetch does not report how much has been sent.
 * @throws ApiError, or the reason that `signal` was aborted with
 */
export function upload(path, file, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('PUT', BASE + path)
    request.setRequestHeader('content-type', 'application/json')
    request.upload.addEventListener('progress', ({ loaded }) => onProgress(loaded))
    request.addEventListener('error', async () => reject(await uploadError(file)))
    request.addEventListener('abort', () => reject(signal.reason))
    request.addEventListener('load', () => {
      try {
        resolve(parseReply(path, request.status, request.responseText))
      } catch (error) {
        reject(error)
      }
    })
    signal.addEventListener('abort', () => request.abort())
    if (signal.aborted) return reject(signal.reason)
    request.send(file)
  })
}

/** Returns why a file was not sent. The browser cannot read a file that was changed or moved after it was chosen. */
async function uploadError(file) {
  try {
    await file.slice(0, 1).arrayBuffer()
    return new ApiError(0)
  } catch {
    return new ApiError(0, { code: 'FILE_UNREADABLE' })
  }
}

function parseReply(path, status, text) {
  let reply
  try {
    reply = JSON.parse(text)
  } catch {
    throw new ApiError(status, { code: 'NOT_JSON' })
  }
  if (status >= 200 && status < 300) return reply
  if (status === 401 && path !== '/auth/login') session.dispatchEvent(new Event('ended'))
  throw new ApiError(status, reply)
}

/** Returns when a backup began, in milliseconds since the epoch, which is in its id. */
export const beganAt = (id) => Number(id.slice(id.lastIndexOf('_') + 1))

export const backupUrl = (id) => `${BASE}/backups/${id}`

/** Returns the query for skip lists: JSON arrays for the backup APIs, repeated parameters for previews. */
export function skipQuery(skip, { repeated = false } = {}) {
  const query = new URLSearchParams()
  for (const [database, ids] of Object.entries(skip)) {
    if (ids.length === 0) continue
    const name = `skip_${database}`
    if (repeated) for (const id of ids) query.append(name, id)
    else query.set(name, JSON.stringify(ids))
  }
  return query.size === 0 ? '' : `?${query}`
}
