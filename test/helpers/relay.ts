import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

/** What a relay does to what passes through it. */
export interface RelayOptions {
  /** Called before each request is passed on; may return another path. */
  before?: (request: { method: string; path: string }) => Promise<string | undefined>
  /** Milliseconds that each answer comes late. */
  late?: number
  /** Changes the headers of answers. */
  headers?: (headers: IncomingHttpHeaders) => IncomingHttpHeaders
}

/** Starts a proxy before a database; returns its URL. */
export async function startRelay(t: Test, url: string, options: RelayOptions): Promise<string> {
  const target = new URL(url)
  const { before, late = 0, headers: change = (headers) => headers } = options
  const server = createServer(async (request, response) => {
    const { method = 'GET', headers, url: asked = '/' } = request
    const path = (await before?.({ method, path: asked })) ?? asked
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
  return listenBefore(t, server, url)
}

/** Has a server listen until the test ends; returns its URL, which is that of the database but for its address. */
export async function listenBefore(t: Test, server: Server, url: string): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const through = new URL(url)
  through.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return through.href.replace(/\/$/, '')
}
