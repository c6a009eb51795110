import { once } from 'node:events'
import { createServer, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'

/** A proxy that serves small pages of the changes feed, and lets things happen before each request of the backup. */
export async function startPagingProxy(
  t: Test,
  url: string,
  options: { page: number | undefined; before: (line: string) => Promise<void> }
): Promise<{ couch: ServerScope; pages: () => number }> {
  const target = new URL(url)
  let pages = 0
  const server = createServer(async (request, response) => {
    const { method, headers } = request
    let path = request.url ?? ''
    if (path.includes('/_changes')) {
      pages++
      if (options.page) path = path.replace(/limit=10000/, `limit=${options.page}`)
    }
    await options.before(`${method} ${path}`)
    const onward = send({ host: target.hostname, port: target.port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.pipe(onward)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const through = new URL(url)
  through.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return { couch: nano(through.href.replace(/\/$/, '')), pages: () => pages }
}
