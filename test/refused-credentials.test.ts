import { createServer } from 'node:http'
import t, { type Test } from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { BACKGROUND } from '../lib/couch/retry.js'
import { clientOf } from './helpers/couch-client.js'
import { listen } from './helpers/listen.js'

/** Starts a server that takes one password, with a client that asks for its own before each attempt. */
async function startGuarded(t: Test, password: () => string) {
  let refused = 0
  const server = createServer((request, response) => {
    const isRight = request.headers.authorization === 'right'
    if (!isRight) refused++
    response.writeHead(isRight ? 200 : 401, { 'content-type': 'application/json' })
    response.end(
      isRight
        ? '{"_id":"x","_rev":"1-a"}'
        : '{"error":"unauthorized","reason":"Name or password is incorrect."}'
    )
  })
  const origin = await listen(t, server)
  const client = clientOf(t, origin, {
    connect: () => ({ origin, basePath: '', headers: { authorization: password() }, dispatcher: undefined }),
    retry: { ...BACKGROUND, wait: 1, longest: 1 }
  })
  return { db: new CouchDatabase(client, 'db'), refused: () => refused }
}

t.test('wrong credentials are tried twice, before a server locks the account', async (t) => {
  const { db, refused } = await startGuarded(t, () => 'wrong')
  const error = await db.get('x').catch((error: unknown) => error)
  t.match(error, { status: 401, reason: 'Name or password is incorrect.' })
  t.equal(refused(), 2)
})

t.test('credentials that the host has changed meanwhile are taken for the second attempt', async (t) => {
  const passwords = ['wrong', 'right']
  const { db, refused } = await startGuarded(t, () => passwords.shift() ?? 'right')
  t.match(await db.get('x'), { _id: 'x' })
  t.equal(refused(), 1)
})
