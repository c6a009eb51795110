import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import * as errors from '../lib/errors.js'
import * as api from '../lib/index.js'
import type { StoredHeader } from '../lib/repository/layout.js'
import { apiOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { load } from './helpers/seed.js'

interface PublicError extends Error {
  code: string
  statusCode: number
}

const ROOT = join(__dirname, '..')
/** Arguments of the constructors of errors with members of their own. The others take texts. */
const ARGUMENTS: Record<string, unknown[]> = {
  OperationInProgressError: ['backup', { operation: 'restore', id: 'x' }],
  CopyConflictError: ['x', 'y', 'is there'],
  DamagedBackupError: ['chunk', 'x', 'is missing'],
  IncompleteRestoreError: ['x', { tx_id: 'x', databases: {}, failures: [] }],
  CouchError: ['GET /x', { error: 'bad', reason: 'x' }]
}

const isErrorName = (name: string) => name.endsWith('Error')
const PUBLIC = Object.entries(api)
  .filter(([name]) => isErrorName(name))
  .map(([name, kind]) => {
    const make = kind as new (...args: unknown[]) => PublicError
    return { name, error: new make(...(ARGUMENTS[name] ?? ['a', 'b'])) }
  })

function sources(directory: string): { file: string; text: string }[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => ({ file, text: readFileSync(join(directory, file), 'utf8') }))
}

t.test('every public error has a code of its own and a status', async (t) => {
  t.ok(PUBLIC.length > 20)
  for (const { name, error } of PUBLIC) {
    t.type(error, Error, name)
    t.equal(error.name, name)
    t.ok(error.stack?.startsWith(`${name}: ${error.message}\n    at `), name)
    t.notMatch(error.stack, /^ +at new /m, 'the stack begins where it is made')
    t.match(error.code, /^DB_BACKUPS_[A-Z_]+$/, name)
    t.ok(error.statusCode >= 400 && error.statusCode < 600, `${name}: ${error.statusCode}`)
    t.notMatch(error.message, /%s|undefined/, name)
  }
  t.equal(new Set(PUBLIC.map(({ error }) => error.code)).size, PUBLIC.length, 'no code stands for two')
})

t.test('every public error is made in one module, and exported', async (t) => {
  t.strictSame(PUBLIC.map(({ name }) => name).sort(), Object.keys(errors).filter(isErrorName).sort())
  const elsewhere = sources(join(ROOT, 'lib'))
    .filter(({ file }) => file !== 'errors.ts')
    .filter(({ text }) => /createError\(\s*'DB_BACKUPS|code = 'DB_BACKUPS/.test(text))
  t.strictSame(
    elsewhere.map(({ file }) => file),
    [],
    'no other module makes one'
  )
})

t.test('the reference lists every public error, its code and status, and no other', async (t) => {
  const page = readFileSync(join(ROOT, 'docs', 'hosts.md'), 'utf8')
  const rows = page.matchAll(/^\| `(\w+Error)`\s*\| `(DB_BACKUPS_\w+)`\s*\| (\d+)\s*\| \S/gm)
  t.strictSame(
    [...rows].map(([, name, code, status]) => ({ name, code, status: Number(status) })),
    PUBLIC.map(({ name, error }) => ({ name, code: error.code, status: error.statusCode })).sort((a, b) =>
      a.name.localeCompare(b.name)
    )
  )
})

/** Errors that only a reply, or what a host does with a request, causes. */
const OF_REQUESTS = [
  'AuthorizationFailedError',
  'ClientLeftError',
  'CodedPartError',
  'CrossSiteError',
  'EncodingError',
  'ForbiddenError',
  'RangeAfterEndError'
]

t.test('the types name every error that a host can catch', async (t) => {
  const types = sources(join(ROOT, 'types'))
    .map(({ text }) => text)
    .join('')
  const named = PUBLIC.map(({ name }) => name).filter((name) => new RegExp(`\\b${name}\\b`).test(types))
  t.strictSame(
    named,
    PUBLIC.map(({ name }) => name).filter((name) => !OF_REQUESTS.includes(name))
  )
})

t.test('a header that contradicts its chunks is called a header, and a missing chunk a chunk', async (t) => {
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on })
  await load(on.couch.use(on.names.components), [{ _id: 'a' }])
  const id = await apiOf(host).backup()
  const db = on.couch.use(on.names.system)
  const header = (await db.get(id)) as unknown as StoredHeader
  header.dbs.athena_components!.doc_count++
  await db.insert(header as never)
  const wrong = (await host.app.dbBackups.get(id)).body.toArray()
  await t.rejects(wrong, {
    name: 'DamagedBackupError',
    code: 'DB_BACKUPS_DAMAGED',
    part: 'header',
    id,
    message: `backup header "${id}" says 2 documents for components, its chunks hold 1`
  })
  const chunk = header.storage.databases.components!.chunks[0]!
  await db.destroy(chunk.id, chunk.rev)
  const missing = (await host.app.dbBackups.get(id)).body.toArray()
  await t.rejects(missing, {
    part: 'chunk',
    id: chunk.id,
    message: `backup chunk "${chunk.id}" is missing`
  })
})
