import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import swagger from '@fastify/swagger'
import Fastify from 'fastify'
import type { OpenAPIV3_1 } from 'openapi-types'
import t, { type Test } from 'tap'
import { openApiDocument } from '../examples/openapi/document.js'
import * as errors from '../lib/errors.js'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import type { DbBackupsOptions } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { operationsOf } from './helpers/openapi.js'

const NAMES = [
  'appendAttachment',
  'getBackup',
  'listBackups',
  'restoreBackup',
  'restoreUploadedBackup',
  'startBackup'
]

async function problemsOf(document: object): Promise<unknown> {
  const { Validator } = await import('@seriousme/openapi-schema-validator')
  const validator = new Validator()
  const { valid, errors } = await validator.validate(document as Record<string, unknown>)
  return valid ? undefined : errors
}

t.test('the document is valid OpenAPI 3.1', async (t) => {
  const document = await openApiDocument()
  t.equal(document.openapi, '3.1.0')
  t.equal(await problemsOf(document), undefined)
  const broken = structuredClone(document) as { paths: Record<string, { get?: { responses?: object } }> }
  delete broken.paths['/api/v3/backups']!.get!.responses
  broken.paths['no slash'] = {}
  t.ok(await problemsOf(broken), 'an invalid document would be found')
})

t.test('docs/openapi.json is the document: run `npm run openapi` after a change', async (t) => {
  const file = await readFile(join(__dirname, '../docs/openapi.json'), 'utf8')
  t.strictSame(JSON.parse(file), JSON.parse(JSON.stringify(await openApiDocument())))
})

t.test('the document shows one version of each prefix, with operation ids of its own', async (t) => {
  const operations = operationsOf(await openApiDocument())
  const of = (prefix: string) => operations.filter(({ path }) => path.startsWith(prefix))
  t.equal(operations.length, 12)
  t.strictSame(
    of('/ak/api/v3/backups')
      .map(({ operation }) => operation.operationId)
      .sort(),
    NAMES
  )
  t.strictSame(
    of('/api/v3/backups')
      .map(({ operation }) => operation.operationId)
      .sort(),
    NAMES.map((name) => `${name}InSession`)
  )
})

t.test('every operation is described', async (t) => {
  const document = await openApiDocument()
  const tags = document.tags!.map(({ name }) => name)
  for (const { path, method, operation } of operationsOf(document)) {
    const { operationId, summary, security, parameters = [], requestBody, responses } = operation
    t.ok(summary, `${operationId} has a summary`)
    t.ok(operation.tags!.length === 1 && tags.includes(operation.tags![0]!), 'a tag that is explained')
    t.strictSame(security, [{ [path.startsWith('/ak/') ? 'apiKey' : 'session']: [] }], 'a security scheme')
    for (const parameter of parameters as OpenAPIV3_1.ParameterObject[]) {
      t.ok(parameter.description && parameter.example, `${operationId}: ${parameter.name} has an example`)
    }
    t.equal(requestBody !== undefined, method === 'put', `${operationId}: a body where there is one`)
    const body = requestBody as OpenAPIV3_1.RequestBodyObject | undefined
    if (body) {
      t.equal(
        body.required,
        !/^restoreBackup/.test(operationId!),
        `${operationId}: the body may be absent or not`
      )
      t.strictSame(Object.keys(body.content), ['application/json'])
      t.ok(Object.keys(body.content['application/json']!.examples!).length > 0, 'with examples')
    }
    for (const [status, response] of Object.entries(responses!)) {
      const { description, content } = response as OpenAPIV3_1.ResponseObject
      t.ok(description, `${operationId}: ${status} is described`)
      t.ok(Object.keys(content!['application/json']!.examples!).length > 0, 'with examples')
    }
  }
})

t.test('every error that the package exports has an example, unless no reply has its code', async (t) => {
  const document = JSON.stringify(await openApiDocument())
  const codes = Object.values(errors).map(
    (Exported) =>
      new (Exported as new (...given: unknown[]) => { code: string })('', { error: '', reason: '' }).code
  )
  t.ok(codes.length >= 10)
  const withoutReply = [
    // the reply does not show its code
    'DB_BACKUPS_IN_PROGRESS',
    // of removals, which no route begins
    'DB_BACKUPS_PROTECTED',
    'DB_BACKUPS_CLOCK_LEAP',
    'DB_BACKUPS_CLOCK_AHEAD',
    // only where the disk loses what was spooled
    'DB_BACKUPS_SPOOL_DAMAGED',
    // of copies, cancelling and the operator's routes, which are none of the six
    'DB_BACKUPS_CANCELLED',
    'DB_BACKUPS_NOT_RUNNING',
    'DB_BACKUPS_NOT_CANCELLABLE',
    'DB_BACKUPS_CROSS_SITE',
    'DB_BACKUPS_NOT_COPYABLE',
    'DB_BACKUPS_COPY_CONFLICT',
    // raised long after the reply to the backup or restore
    'DB_BACKUPS_DELETED',
    'DB_BACKUPS_LEASE_LOST',
    'DB_BACKUPS_RESTORE_INCOMPLETE',
    'DB_BACKUPS_TOO_MANY_REPEATED',
    // raised when the reply has begun, or nobody waits for it
    'DB_BACKUPS_CHANGED',
    'DB_BACKUPS_DOWNLOAD_STALLED',
    'DB_BACKUPS_CLIENT_LEFT',
    // of webhook stores, when a restore runs; ids of transactions are random
    'DB_BACKUPS_TRANSACTION_EXISTS',
    'DB_BACKUPS_SAFETY_BACKUP_FAILED',
    'DB_BACKUPS_NO_TRANSACTION',
    'DB_BACKUPS_NOT_COMPARABLE',
    'DB_BACKUPS_DIFF_STALLED',
    'DB_BACKUPS_NOT_VERIFIABLE',
    'DB_BACKUPS_VERIFY_INTERRUPTED'
  ]
  for (const code of codes) t.equal(document.includes(`"${code}"`), !withoutReply.includes(code), code)
})

t.test('both schemes have the same operations', async (t) => {
  const document = await openApiDocument()
  const operation = (id: string) => {
    const found = operationsOf(document).find(({ operation }) => operation.operationId === id)!
    return { ...found.operation, operationId: undefined, security: undefined }
  }
  for (const name of NAMES) t.strictSame(operation(`${name}InSession`), operation(name), name)
})

/** Returns the document of a host that has only the scheme `basic`. */
async function hostDocument(t: Test, options: Partial<DbBackupsOptions>) {
  const { couch, names } = await setupDatabases(t)
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Host', version: '1.0.0' },
      components: { securitySchemes: { basic: { type: 'http', scheme: 'basic' } } }
    }
  })
  await app.register(dbBackups, {
    couch,
    databases: names,
    webhooks: createMemoryWebhookStore(),
    authorize() {},
    rebuildWhitelist() {},
    ...options
  })
  await app.ready()
  return app.swagger() as OpenAPIV3_1.Document
}

t.test('the security schemes are named as the host names them, or not at all', async (t) => {
  const schemes = async (options: Partial<DbBackupsOptions>) => {
    const document = await hostDocument(t, options)
    t.equal(await problemsOf(document), undefined)
    const security: Record<string, unknown> = {}
    for (const { operation } of operationsOf(document)) security[operation.operationId!] = operation.security
    return [security.startBackup, security.startBackupInSession]
  }
  t.strictSame(await schemes({}), [undefined, undefined])
  t.strictSame(await schemes({ securitySchemes: { 'api-key': 'basic' } }), [[{ basic: [] }], undefined])
})
