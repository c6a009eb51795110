import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

/** Starts a server on a free port of this machine, and returns its URL. The server closes when the test ends. */
export async function listen(t: Test, server: Server): Promise<string> {
  // A request on a connection that is closed meanwhile fails, and Node's 5 s pass on a busy machine.
  server.keepAliveTimeout = 300_000
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close().closeAllConnections())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Starts a server as {@link listen} does, and returns `url` with the address of the server in place of its own. */
export async function listenInFrontOf(t: Test, server: Server, url: string): Promise<string> {
  const through = new URL(url)
  through.host = new URL(await listen(t, server)).host
  return through.href.replace(/\/$/, '')
}
