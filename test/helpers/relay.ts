import { once } from 'node:events'
import { createServer, type OutgoingHttpHeaders, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'

/** What a relay does to each answer. */
export interface RelayOptions {
  /** Milliseconds that it comes late. */
  late?: number
  /** Changes the headers. */
  headers?: (headers: OutgoingHttpHeaders) => OutgoingHttpHeaders
}

/** Starts a proxy before a database; returns its URL. */
export async function startRelay(t: Test, url: string, options: RelayOptions): Promise<string> {
  const target = new URL(url)
  const { late = 0, headers: change = (headers) => headers } = options
  const server = createServer(async (request, response) => {
    const { method, headers, url: path } = request
    const onward = send({ host: target.hostname, port: target.port, method, path, headers })
    onward.on('error', () => response.destroy())
    request.pipe(onward)
    const [answer] = await once(onward, 'response')
    await delay(late)
    response.sendDate = false
    response.writeHead(answer.statusCode, change(answer.headers))
    answer.pipe(response)
  })
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
