import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { CouchClient } from '../../lib/couch/client.js'
import { CouchDatabase } from '../../lib/couch/database.js'

/** A database that answers as the test says, and how many of its answers somebody still reads. */
export async function startAnsweringCouch(t: Test, answer: RequestListener) {
  let reading = 0
  const server = createServer((request, response) => {
    reading++
    response.once('close', () => reading--)
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const client = new CouchClient({
    connect: () => ({
      origin: `http://127.0.0.1:${port}`,
      basePath: '',
      headers: {},
      dispatcher: undefined
    }),
    retry: { attempts: 3, wait: 1, longest: 1 },
    control: 5000,
    idle: 5000
  })
  t.teardown(async () => {
    await client.close()
    server.closeAllConnections()
    server.close()
  })
  return { db: new CouchDatabase(client, 'backups'), reading: () => reading }
}
