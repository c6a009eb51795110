import { createServer, type IncomingHttpHeaders, request as send } from 'node:http'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import { listenInFrontOf } from './listen.js'

/** The changes that a relay makes. */
interface RelayOptions {
  /** Called before each request is passed on. May return another path. */
  before?: (request: { method: string; path: string }) => Promise<string | undefined>
  /** Milliseconds by which each answer is delayed. Default 0. */
  late?: number
  /** Changes the headers of answers. */
  headers?: (headers: IncomingHttpHeaders) => IncomingHttpHeaders
}

/** Starts a proxy in front of a database, and returns its URL. */
export async function startRelay(t: Test, url: string, options: RelayOptions): Promise<string> {
  const target = new URL(url)
  const { before, late = 0, headers: change = (headers) => headers } = options
  const server = createServer(async (request, response) => {
    const { method = 'GET', headers, url: asked = '/' } = request
    const path = (await before?.({ method, path: asked })) ?? asked
    // a request to the database whose sender has left would never end
    if (response.destroyed) return
    const onward = send({ host: target.hostname, port: target.port, method, path, headers }, (answer) => {
      const pass = () => {
        response.sendDate = false
        response.writeHead(answer.statusCode ?? 502, change(answer.headers))
        answer.pipe(response)
      }
      if (late > 0) setTimeout(pass, late)
      else pass()
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  })
  return listenInFrontOf(t, server, url)
}

/** Starts a proxy that serves small pages of the changes feed, and calls `before` for each request. */
export async function startPagingProxy(
  t: Test,
  url: string,
  options: { page: number | undefined; before: (line: string) => Promise<void> }
): Promise<{ couch: ServerScope; pages: () => number }> {
  let pages = 0
  const before = async ({ method, path: asked }: { method: string; path: string }) => {
    let path = asked
    if (path.includes('/_changes')) {
      pages++
      if (options.page) path = path.replace(/limit=10000/, `limit=${options.page}`)
    }
    await options.before(`${method} ${path}`)
    return path
  }
  const couch = nano(await startRelay(t, url, { before }))
  return { couch, pages: () => pages }
}
