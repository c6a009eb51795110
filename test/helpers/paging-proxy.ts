import nano, { type ServerScope } from 'nano'
import type { Test } from 'tap'
import { startRelay } from './relay.js'

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
