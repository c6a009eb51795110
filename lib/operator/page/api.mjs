/** The host's name, where its routes are, and how people sign in. */
export const config = await (await fetch('config.json')).json()

/** Path of the page's own routes, below its address. */
const BASE = 'api'
/** Header of every request: pages of other sites cannot send it. */
const FROM_PAGE = { 'x-requested-with': 'fastify-couchdb-backups' }
/** The token that the host demands of requests that change something. */
let csrfToken

/** Keeps the token of an overview, if it has one. */
export const keepToken = ({ csrf_token: token }) => {
  csrfToken = token
}

const ownHeaders = () => (csrfToken === undefined ? FROM_PAGE : { ...FROM_PAGE, 'x-csrf-token': csrfToken })

/** Dispatches `ended` when the server no longer knows this browser's session. */
export const session = new EventTarget()

/** Reports that the server refused a request, or could not be reached (status 0). */
export class ApiError extends Error {
  constructor(status, { message, reason, code, id, position } = {}) {
    super(message ?? reason ?? `status ${status}`)
    this.status = status
    this.code = code
    /** Id of the operation that runs already: a backup's, or that of a restore's transaction. */
    this.id = id
    /** Where an interrupted verification goes on. */
    this.position = position
  }
}

/**
 * Sends a request with a JSON body, or none, and returns the JSON reply.
 * @throws ApiError, or the reason that `signal` was aborted with
 */
export async function call(method, path, options = {}) {
  const response = await send(method, BASE + path, options)
  return parseReply(path, response.status, await response.text())
}

/** Calls one of the six routes, or another route of the host, as {@link call} does. `path` begins at the host's root. */
export async function callHost(method, path, options = {}) {
  const response = await send(method, path, options)
  return parseReply(path, response.status, await response.text())
}

async function send(method, url, { body, signal }) {
  try {
    return await fetch(url, {
      method,
      signal,
      cache: 'no-store',
      headers: { ...ownHeaders(), ...(body !== undefined && { 'content-type': 'application/json' }) },
      ...(body !== undefined && { body: JSON.stringify(body) })
    })
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError(0)
  }
}

/**
 * Sends a request whose reply is lines of JSON, and yields each.
 * @param last member of the line with which a whole reply ends
 * @throws ApiError, also for a line that reports an error, and for a reply that ends without its last line
 */
export async function* callLines(method, path, last, options = {}) {
  const response = await send(method, BASE + path, options)
  if (!response.ok) parseReply(path, response.status, await response.text())
  const decoder = new TextDecoder()
  const reader = response.body.getReader()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await read(reader, options.signal)
      if (done) throw new ApiError(0)
      const lines = (rest + decoder.decode(value, { stream: true })).split('\n')
      rest = lines.pop()
      for (const line of lines) {
        const parsed = JSON.parse(line)
        if (parsed.error) throw new ApiError(response.status, parsed.error)
        yield parsed
        if (parsed[last] !== undefined) return
      }
    }
  } finally {
    reader.cancel().catch(() => undefined)
  }
}

async function read(reader, signal) {
  try {
    return await reader.read()
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError(0)
  }
}

/**
 * Uploads a file to a path of the host or of the page. Uses XMLHttpRequest, since fetch does not report how much was
 * sent.
 * @throws ApiError, or the reason that `signal` was aborted with
 */
export function upload(path, file, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('PUT', path)
    for (const [name, value] of Object.entries(ownHeaders())) request.setRequestHeader(name, value)
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
  if (status === 401 && path !== config.signIn.login?.path) session.dispatchEvent(new Event('ended'))
  throw new ApiError(status, reply)
}

/** Reads from a backup's id when it began, in milliseconds since the epoch. */
export const beganAt = (id) => Number(id.slice(id.lastIndexOf('_') + 1))

export const backupUrl = (id) => `${config.backupsPath}/${id}`

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
