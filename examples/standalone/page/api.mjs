const BASE = 'api/v2'

/** Tells when the server no longer knows this browser's session. */
export const session = new EventTarget()

/** The server refused, or could not be reached (status 0). */
export class ApiError extends Error {
  constructor(status, { message, reason, code, id } = {}) {
    super(message ?? reason ?? `status ${status}`)
    this.status = status
    this.code = code
    /** What runs already: a backup's id, or a restore's transaction. */
    this.id = id
  }
}

/**
 * Calls the API as JSON.
 * @throws ApiError; what `signal` was aborted with
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
  return answer(path, response.status, await response.text())
}

/**
 * Sends a file as it lies on the disk. Not with fetch, which does not tell how much has been sent.
 * @throws ApiError; what `signal` was aborted with
 */
export function upload(path, file, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('PUT', BASE + path)
    request.setRequestHeader('content-type', 'application/json')
    request.upload.addEventListener('progress', ({ loaded }) => onProgress(loaded))
    request.addEventListener('error', async () => reject(await unsent(file)))
    request.addEventListener('abort', () => reject(signal.reason))
    request.addEventListener('load', () => {
      try {
        resolve(answer(path, request.status, request.responseText))
      } catch (error) {
        reject(error)
      }
    })
    signal.addEventListener('abort', () => request.abort())
    if (signal.aborted) return reject(signal.reason)
    request.send(file)
  })
}

/** Why a file could not be sent: a file that was changed or moved since it was chosen cannot be read any more. */
async function unsent(file) {
  try {
    await file.slice(0, 1).arrayBuffer()
    return new ApiError(0)
  } catch {
    return new ApiError(0, { code: 'FILE_UNREADABLE' })
  }
}

function answer(path, status, text) {
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

export const backupUrl = (id) => `${BASE}/backups/${id}`

/** The query of a restore. The backup APIs take JSON arrays, the previews repeated parameters. */
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
