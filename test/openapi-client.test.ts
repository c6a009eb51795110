import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import openapiTypes, { astToString } from 'openapi-typescript'
import t, { type Test } from 'tap'
import { openApiDocument } from '../examples/openapi/document.js'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { load } from './helpers/seed.js'

const MODULES = join(__dirname, '../node_modules')
const execute = promisify(execFile)

/** A client that uses the generated types. */
const CLIENT = `
import createClient from 'openapi-fetch'
import type { components, paths } from './api.js'

type Backup = components['schemas']['DbBackup']
const API = '/ak/api/v3/backups'
const client = createClient<paths>({ baseUrl: process.argv[2]!, headers: { 'x-role': 'manager' } })

async function read(backup_id: string): Promise<Backup> {
  for (;;) {
    const { data, error } = await client.GET(\`\${API}/{backup_id}\`, { params: { path: { backup_id } } })
    if (error) throw new Error(error.message)
    if (!data.in_progress) return data
  }
}

async function restored(start: () => Promise<{ data?: { url: string }; error?: { message?: string; id?: string } }>) {
  for (;;) {
    const { data, error } = await start()
    if (data) return data.url
    if (error?.message !== 'already_in_progress') throw new Error(error?.message)
  }
}

const { data: started } = await client.POST(API)
const backup_id = started!.id
await read(backup_id)
const { data: stored } = await client.PUT(\`\${API}/{backup_id}/attachments/{att_name}\`, {
  params: { path: { backup_id, att_name: 'my-attachment' } },
  body: { attachment: 'aGVsbG8=' }
})
const { data: list } = await client.GET(API)
const backup = await read(backup_id)
const urls = [
  await restored(() =>
    client.PUT(\`\${API}/{backup_id}\`, {
      params: { path: { backup_id }, query: { skip_system: ['a', 'b'], skip_components: '["c"]' } }
    })
  ),
  await restored(() => client.PUT(API, { body: { ...backup, client_webhook_url: undefined } }))
]
const { error, response } = await client.GET('/api/v3/backups/{backup_id}', {
  params: { path: { backup_id: '03_ibp_db_backup_1' } }
})
console.log(JSON.stringify({ stored, list, backup, urls, error, retry: response.headers.get('retry-after') }))
`

/** Each line must not compile. */
const WRONG = `
import createClient from 'openapi-fetch'
import type { paths } from './api.js'
const client = createClient<paths>()
// @ts-expect-error no such route
client.DELETE('/ak/api/v3/backups')
// @ts-expect-error v1 is not in the document
client.GET('/ak/api/v1/backups')
// @ts-expect-error the id is missing
client.GET('/ak/api/v3/backups/{backup_id}')
// @ts-expect-error the databases are missing
client.PUT('/ak/api/v3/backups', { body: {} })
// @ts-expect-error there is no such parameter
client.GET('/ak/api/v3/backups', { params: { query: { limit: 1 } } })
client.PUT('/ak/api/v3/backups/{backup_id}/attachments/{att_name}', {
  params: { path: { backup_id: 'a', att_name: 'b' } },
  // @ts-expect-error a string
  body: { attachment: 1 }
})
// @ts-expect-error a reply has no such member
client.POST('/ak/api/v3/backups').then(({ data }) => data?.status)
`

/** Compiles the client against the types that are generated from the document. */
async function compile(t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'client-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  await mkdir(join(directory, 'node_modules/@types'), { recursive: true })
  for (const name of ['openapi-fetch', 'openapi-typescript-helpers', '@types/node']) {
    await symlink(join(MODULES, name), join(directory, 'node_modules', name))
  }
  const document = await openApiDocument()
  await writeFile(join(directory, 'package.json'), '{"type":"module"}')
  await writeFile(join(directory, 'api.ts'), astToString(await openapiTypes(document as never)))
  await writeFile(join(directory, 'client.ts'), CLIENT)
  await writeFile(join(directory, 'wrong.ts'), WRONG)
  const compilerOptions = {
    strict: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    target: 'ES2022',
    module: 'NodeNext',
    types: ['node']
  }
  await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions }))
  const tsc = join(MODULES, 'typescript/bin/tsc')
  const problems = await execute(process.execPath, [tsc, '-p', directory]).then(
    () => '',
    (error: { stdout: string }) => error.stdout
  )
  t.equal(problems, '', 'it compiles')
  return join(directory, 'client.js')
}

t.test('a client with generated types compiles, and does everything the API offers', async (t) => {
  const client = await compile(t)
  const host = await buildHost(t)
  const documents = [
    { _id: 'org1peer', type: 'fabric-peer' },
    { _id: 'c', type: 'fabric-ca' }
  ]
  await load(host.on.couch.use(host.on.names.components), documents)
  const origin = await host.app.listen({ port: 0, host: '127.0.0.1' })
  const { stdout } = await execute(process.execPath, [client, origin])
  const told = JSON.parse(stdout)
  const [id] = told.list.ids
  t.strictSame(told.stored, { message: 'ok', att_name: 'my-attachment' })
  t.strictSame(told.backup, await apiOf(host).get(id))
  t.equal(told.backup.dbs.athena_components.docs.length, 2)
  t.strictSame(told.error, { statusCode: 404, error: 'not_found', reason: 'missing' })
  const [byId, upload] = await Promise.all(told.urls.map((url: string) => host.waitForRestore(url)))
  t.match(byId, { status: 'success', backup_id: id, databases: { components: { skipped: 1, unchanged: 1 } } })
  t.match(upload, { status: 'success', databases: { components: { skipped: 0, unchanged: 2 } } })
})
