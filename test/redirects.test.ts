import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import nano from 'nano'
import t from 'tap'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'

t.test(
  'a redirect in the place of the database is an error of the request, and of nothing else',
  async (t) => {
    const redirecting = createServer((_request, response) => {
      response.writeHead(302, { location: '/login', 'content-type': 'text/html' })
      // more than what arrives with the head, so that a rest remains unread
      response.end('<p>Sign in</p>'.repeat(100_000))
    })
    t.teardown(() => redirecting.close())
    await new Promise<void>((resolve) => redirecting.listen(0, '127.0.0.1', resolve))
    const on = await setupDatabases(t)
    const { port } = redirecting.address() as AddressInfo
    let couch = on.couch
    const host = await buildHost(t, { on, couch: () => couch })
    const list = () => host.app.inject({ url: '/api/v1/backups', headers: host.as('manager') })

    couch = nano(`http://127.0.0.1:${port}`)
    const refused = await list()
    t.equal(refused.statusCode, 503)
    t.match(refused.json().message, /answered 302 Found: let "couch" name the address that it leads to/)
    t.notMatch(refused.body, /login|Sign in/)

    couch = on.couch
    t.equal((await list()).statusCode, 200, 'the server serves on')
  }
)
