import type { FastifyInstance, InjectOptions } from 'fastify'
import nano from 'nano'
import type { OpenAPIV3_1 } from 'openapi-types'
import t, { type Test } from 'tap'
import { Access } from '../examples/standalone/access.js'
import { DOCS_PATH } from '../examples/standalone/api-docs.js'
import { buildConsole } from '../examples/standalone/server.js'
import { setupDatabases } from './helpers/database.js'
import { operationsOf } from './helpers/openapi.js'

const PASSWORD = 'correct horse battery staple'

async function build(t: Test, address?: string) {
  const { url, names } = await setupDatabases(t)
  const couch = nano(address ?? url)
  const access = new Access(couch.use(names.system), { manager: PASSWORD })
  const app = await buildConsole({ couch, names, access })
  t.teardown(() => app.close())
  return Object.assign(app, { access, system: couch.use(names.system) })
}

async function documentOf(app: FastifyInstance): Promise<OpenAPIV3_1.Document> {
  return (await app.inject(`${DOCS_PATH}/json`)).json()
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
  const document = await documentOf(app)
  const { Validator } = await import('@seriousme/openapi-schema-validator')
  t.match(await new Validator().validate(document as never), { valid: true })
  const operations = operationsOf(document)
  const ids = operations.map(({ operation }) => operation.operationId)
  t.equal(new Set(ids).size, 16)
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

t.test('operations are in one group for each security scheme, with log in first', async (t) => {
  const document = await documentOf(await build(t))
  const schemes = document.components!.securitySchemes!
  t.strictSame(Object.keys(schemes), ['session-cookie', 'api-key'])
  for (const [name, scheme] of Object.entries(schemes)) {
    t.ok((scheme as OpenAPIV3_1.SecuritySchemeObject).description, `${name} is described`)
  }
  t.match(document.tags, [
    { name: 'With a session', description: /\/api\b/ },
    { name: 'With an API key', description: /\/ak\/api\b/ }
  ])
  const operations = operationsOf(document)
  t.equal(operations[0]!.operation.operationId, 'logIn')
  for (const { path, operation } of operations) {
    const [tag, scheme] = path.startsWith('/ak/')
      ? ['With an API key', 'api-key']
      : ['With a session', 'session-cookie']
    t.strictSame(operation.tags, [tag], path)
    const security = operation.operationId === 'logIn' ? [] : [{ [scheme!]: [] }]
    t.strictSame(operation.security, security, path)
  }
})

t.test('the document describes how a login and a transaction are refused', async (t) => {
  const app = await build(t)
  const operations = operationsOf(await documentOf(app))
  const refused = async (operationId: string, status: number, request: InjectOptions, by = app) => {
    const { operation } = operations.find((one) => one.operation.operationId === operationId)!
    const reply = await by.inject(request)
    t.equal(reply.statusCode, status, `${operationId} ${status}`)
    const response = operation.responses![status] as OpenAPIV3_1.ResponseObject
    const { refusal } = response.content!['application/json']!.examples!
    t.strictSame(reply.json(), (refusal as OpenAPIV3_1.ExampleObject).value)
  }
  const login = { method: 'POST', url: '/api/v3/auth/login' } as const
  const email = 'admin@example.com'
  await refused('logIn', 400, { ...login, payload: { email } })
  await refused('logIn', 401, { ...login, payload: { email, password: 'wrong' } })
  const headers = { 'content-type': 'application/x-www-form-urlencoded' }
  await refused('logIn', 415, { ...login, headers, payload: 'x' })

  const { headers: replied } = await app.inject({ ...login, payload: { email, password: PASSWORD } })
  const cookie = String(replied['set-cookie']).split(';')[0]!
  const url = '/api/v3/webhooks/txs/nope'
  await refused('getTransactionInSession', 401, { url })
  await refused('getTransactionInSession', 404, { url, headers: { cookie } })

  const withKey = { url: `/ak${url}`, headers: { authorization: `Basic ${btoa('reader:secret')}` } }
  await refused('getTransaction', 401, withKey)
  await app.access.storeKeys({ manager: 'manager:secret', reader: 'reader:secret' })
  await refused('getTransaction', 404, withKey)
  const { _rev, ...key } = await app.system.get('api_key_reader')
  await app.system.insert({ ...key, _rev, roles: ['nobody'] } as object)
  await refused('getTransaction', 403, withKey)
  await refused('getTransaction', 503, withKey, await build(t, 'http://127.0.0.1:9'))
})
