import { createServer, type RequestListener } from 'node:http'
import type { Test } from 'tap'
import { CouchClient } from '../../lib/couch/client.js'
import { CouchDatabase } from '../../lib/couch/database.js'
import { listen } from './listen.js'

/** Starts a database that answers as the test says. `reading` counts the answers that a client still reads. */
export async function startAnsweringCouch(t: Test, answer: RequestListener) {
  let reading = 0
  const server = createServer((request, response) => {
    reading++
    response.once('close', () => reading--)
    answer(request, response)
  })
  const origin = await listen(t, server)
  const client = new CouchClient({
    connect: () => ({ origin, basePath: '', headers: {}, dispatcher: undefined }),
    retry: { attempts: 3, wait: 1, longest: 1 },
    control: 5000,
    idle: 5000
  })
  t.teardown(() => client.close())
  return { db: new CouchDatabase(client, 'backups'), reading: () => reading }
}
