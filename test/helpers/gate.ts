import { once } from 'node:events'
import { createServer, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'
import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import type { TestDatabases } from './database.js'

export interface Gate {
  /** The databases as they are reached through the gate. */
  couch: ServerScope
  /** `GET /database/...` of every request that arrived, in order. */
  requests: string[]
  /** Requests that match wait until the returned function is called. */
  hold(pattern: RegExp): () => void
  /** Resolves when a matching request waits. */
  held(pattern: RegExp): Promise<void>
}

/** A proxy in front of the databases that can make requests wait; closed when the test ends. */
export async function startGate(t: Test, { url }: TestDatabases): Promise<Gate> {
  const requests: string[] = []
  const holds = new Map<RegExp, { released: Promise<void>; release: () => void }>()
  const waiting = new Set<string>()
  const arrivals = new Set<() => void>()
  const target = new URL(url)
  const server = createServer(async (request, response) => {
    const line = `${request.method} ${request.url}`
    requests.push(line)
    for (const [pattern, { released }] of holds) {
      if (!pattern.test(line)) continue
      waiting.add(line)
      for (const arrived of arrivals) arrived()
      await released
      waiting.delete(line)
    }
    // Whoever asked has left: what is sent on now would never end.
    if (response.destroyed) return
    const { method, url: path, headers } = request
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
  const through = new URL(url)
  through.port = String((server.address() as AddressInfo).port)
  through.hostname = '127.0.0.1'
  t.teardown(async () => {
    for (const { release } of holds.values()) release()
    server.close()
    server.closeAllConnections()
  })
  return {
    couch: nano(through.href.replace(/\/$/, '')),
    requests,
    hold(pattern) {
      let release = () => {}
      const released = new Promise<void>((resolve) => {
        release = resolve
      })
      holds.set(pattern, { released, release })
      return () => {
        holds.delete(pattern)
        release()
      }
    },
    async held(pattern) {
      while (![...waiting].some((line) => pattern.test(line))) {
        await new Promise<void>((resolve) => {
          const arrived = () => {
            arrivals.delete(arrived)
            resolve()
          }
          arrivals.add(arrived)
        })
      }
    }
  }
}
