import nano from 'nano'
import type { OpenAPIV3_1 } from 'openapi-types'
import t, { type Test } from 'tap'
import { Access } from '../examples/standalone/access.js'
import { DOCS_PATH } from '../examples/standalone/api-docs.js'
import { buildConsole } from '../examples/standalone/server.js'
import { setupDatabases } from './helpers/database.js'
import { operationsOf } from './helpers/openapi.js'

async function build(t: Test) {
  const { url, names } = await setupDatabases(t)
  const couch = nano(url)
  const app = await buildConsole({ couch, names, access: new Access(couch.use(names.system)) })
  t.teardown(() => app.close())
  return app
}

t.test('the example serves Swagger UI, which may load nothing from elsewhere', async (t) => {
  const app = await build(t)
  const page = await app.inject(`${DOCS_PATH}/`)
  t.equal(page.statusCode, 200)
  const policy = String(page.headers['content-security-policy'])
  t.match(policy, /default-src 'none'; script-src 'self';/)
  t.notMatch(policy, /http|\*|unsafe-eval/)
  t.notMatch(page.body, /<script(?! src="\.\/)/, 'no scripts inline')
  for (const [, path] of page.body.matchAll(/<script src="\.(\/[^"]+)"/g)) {
    t.equal((await app.inject(DOCS_PATH + path)).statusCode, 200, path)
  }
})

t.test('the document of the example is valid, and what it shows is there', async (t) => {
  const app = await build(t)
  const document: OpenAPIV3_1.Document = (await app.inject(`${DOCS_PATH}/json`)).json()
  const { Validator } = await import('@seriousme/openapi-schema-validator')
  t.match(await new Validator().validate(document as never), { valid: true })
  const operations = operationsOf(document)
  const ids = operations.map(({ operation }) => operation.operationId)
  t.equal(new Set(ids).size, 15)
  for (const id of ['startBackup', 'getTransaction', 'logIn', 'logOut']) t.ok(ids.includes(id), id)
  for (const { path, method, operation } of operations) {
    const { statusCode } = await app.inject({ method: method.toUpperCase() as 'GET', url: path })
    const { security } = operation
    if (security!.length > 0 && operation.operationId !== 'logOut') {
      t.equal(statusCode, 401, `${method} ${path} needs ${Object.keys(security![0]!)}`)
    } else {
      t.not(statusCode, 404, `${method} ${path}`)
    }
  }
})
