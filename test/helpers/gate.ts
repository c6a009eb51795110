import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import type { TestDatabases } from './database.js'
import { startRelay } from './relay.js'

export interface Gate {
  /** The databases, reached through the gate. */
  couch: ServerScope
  /** `GET /database/...` of every request that arrived, in order. */
  requests: string[]
  /** Holds back matching requests until the returned function is called. */
  hold(pattern: RegExp): () => void
  /** Resolves when a matching request is held back. */
  held(pattern: RegExp): Promise<void>
}

/** Starts a proxy in front of the databases that can hold back requests. It closes when the test ends. */
export async function startGate(t: Test, { url }: TestDatabases): Promise<Gate> {
  const requests: string[] = []
  const holds = new Map<RegExp, { released: Promise<void>; release: () => void }>()
  const waiting = new Set<string>()
  const arrivals = new Set<() => void>()
  const before = async ({ method, path }: { method: string; path: string }) => {
    const line = `${method} ${path}`
    requests.push(line)
    for (const [pattern, { released }] of holds) {
      if (!pattern.test(line)) continue
      waiting.add(line)
      for (const arrived of arrivals) arrived()
      await released
      waiting.delete(line)
    }
    return path
  }
  const couch = nano(await startRelay(t, url, { before }))
  t.teardown(() => {
    for (const { release } of holds.values()) release()
  })
  return {
    couch,
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
