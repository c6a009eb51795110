import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import nano from 'nano'
import t from 'tap'
import ts from 'typescript'
import { createMemoryWebhookStore } from '../lib/index.js'
import { resolveOptions } from '../lib/options.js'

const ROOT = join(__dirname, '..')
const TYPES = join(ROOT, 'types', 'index.ts')
const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'bench/MEASUREMENTS.md',
  'bench/PROFILE.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`)
]
const pages = new Map(PAGES.map((page) => [page, readFileSync(join(ROOT, page), 'utf8')]))

/** Declarations that the examples assume. */
const GIVEN = `
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { ServerScope } from 'nano'
import type { DbBackupsOptions, Authorize, WebhookStore, WebhookTransaction } from 'fastify-couchdb-backups'
declare global {
  const app: FastifyInstance
  const fastify: FastifyInstance
  const options: DbBackupsOptions
  const couch: ServerScope
  const nano: typeof import('nano')
  const dbBackups: typeof import('fastify-couchdb-backups').dbBackups
  const swagger: typeof import('@fastify/swagger').default
  const authorize: Authorize
  const webhooks: WebhookStore
  function notify(text: string): void
  function currentPassword(): string
  function sessionOf(request: FastifyRequest): Promise<User | undefined>
  function apiKeyOf(request: FastifyRequest): Promise<User | undefined>
  interface User { name: string; uuid: string; actions: string[] }
  const table: {
    insert(key: string, value: WebhookTransaction): Promise<void>
    modify(key: string, change: (value: WebhookTransaction) => WebhookTransaction): Promise<WebhookTransaction>
    find(key: string): Promise<WebhookTransaction | null>
  }
}
`

function examples(): Map<string, string> {
  const found = new Map<string, string>()
  for (const [page, text] of pages) {
    for (const { groups, index } of text.matchAll(/^(?<indent> *)```ts\n(?<code>[\s\S]*?)^ *```$/gm)) {
      const line = text.slice(0, index).split('\n').length
      const name = `${page.replace(/\W/g, '_')}_line_${line}.mts`
      found.set(join(ROOT, 'test', name), `${groups!.code}\nexport {}\n`)
    }
  }
  return found
}

const SETTINGS: ts.CompilerOptions = {
  strict: true,
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  esModuleInterop: true,
  skipLibCheck: true,
  noEmit: true,
  types: ['node'],
  paths: {
    'fastify-couchdb-backups': [join(ROOT, 'lib', 'index.mts')],
    'fastify-couchdb-backups/operator': [join(ROOT, 'lib', 'operator', 'index.mts')]
  }
}

function programOf(virtual: ReadonlyMap<string, string>): ts.Program {
  const host = ts.createCompilerHost(SETTINGS)
  const { getSourceFile, fileExists, readFile } = host
  host.fileExists = (file) => virtual.has(file) || fileExists(file)
  host.readFile = (file) => virtual.get(file) ?? readFile(file)
  host.getSourceFile = (file, ...rest) => {
    const text = virtual.get(file)
    return text === undefined
      ? getSourceFile(file, ...rest)
      : ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true)
  }
  return ts.createProgram([...virtual.keys(), TYPES], SETTINGS, host)
}

const code = examples()
const program = programOf(new Map([...code, [join(ROOT, 'test', 'given.mts'), GIVEN]]))

t.test('every TypeScript example type-checks', async (t) => {
  t.ok(code.size >= 10, `${code.size} examples`)
  for (const file of [...code.keys(), join(ROOT, 'test', 'given.mts')]) {
    const problems = ts.getPreEmitDiagnostics(program, program.getSourceFile(file))
    const told = problems.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
    t.strictSame(told, [], relative(ROOT, file))
  }
})

interface OptionRow {
  name: string
  standard: string
}

/** Returns the rows of the reference's tables. A row may describe several options, the later ones abbreviated. */
function optionRows(): OptionRow[] {
  const section = /^## Options\n([\s\S]*?)^## /m.exec(pages.get('docs/reference.md')!)![1]!
  return [...section.matchAll(/^\| (?<names>`.*?`(?:, `.*?`)*) +\|.*\| +(?<standard>[^|]*?) +\|$/gm)].flatMap(
    ({ groups }) => {
      const names = groups!.names!.split(/`, `/).map((name) => name.replace(/`|\(.*$/g, ''))
      const parent = names[0]!.split('.')[0]!
      const standards = groups!.standard!.split(/, (?=\d)/)
      return names.map((name, i) => {
        const key = /^\['(.*)'\]$/.exec(name)?.[1]
        const full = key ? `${parent}.${key}` : name.startsWith('.') ? parent + name : name
        return { name: full, standard: standards.at(i) ?? standards[0]! }
      })
    }
  )
}

t.test('the tables of options have every option, and no other', async (t) => {
  const checker = program.getTypeChecker()
  const module_ = checker.getSymbolAtLocation(program.getSourceFile(TYPES)!)!
  const symbol = checker.getExportsOfModule(module_).find(({ name }) => name === 'DbBackupsOptions')!
  // for an option that may be a function, the members of what it returns
  const membersOf = (type: ts.Type) => {
    const given = checker.getNonNullableType(type)
    const values = given.isUnion()
      ? given.types.filter((one) => one.getCallSignatures().length === 0)
      : [given]
    return values.flatMap((one) => checker.getPropertiesOfType(one))
  }
  const rows = optionRows().map(({ name }) => name)
  const expected = membersOf(checker.getDeclaredTypeOfSymbol(symbol)).flatMap((option) => {
    if (rows.includes(option.name)) return [option.name]
    return membersOf(checker.getTypeOfSymbol(option)).map(({ name }) => `${option.name}.${name}`)
  })
  t.strictSame(rows.toSorted(), expected.toSorted())
})

t.test('the defaults in the tables of options are those in use', async (t) => {
  const { limits, timeouts, retry } = resolveOptions({
    couch: nano('http://127.0.0.1:9'),
    databases: { components: 'a', sessions: 'b', system: 'c' },
    authorize: () => {},
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => {}
  })
  const units: Record<string, number> = { MiB: 1024 ** 2, GiB: 1024 ** 3 }
  const documented = new Map(optionRows().map(({ name, standard }) => [name, standard]))
  for (const [group, values] of Object.entries({ limits, timeouts, retry })) {
    for (const [name, value] of Object.entries(values)) {
      if (name === 'spoolBytes') continue
      const [, number, unit] = /^([\d,]+) ?(\w+)?/.exec(documented.get(`${group}.${name}`) ?? '') ?? []
      t.equal(Number(number?.replaceAll(',', '')) * (units[unit!] ?? 1), value, `${group}.${name}`)
    }
  }
  t.equal(documented.get('limits.spoolBytes'), 'twice `uploadBytes`')
  t.equal(limits.spoolBytes, 2 * limits.uploadBytes)
})

t.test('every shell block is valid bash', async (t) => {
  for (const [page, text] of pages) {
    const blocks = [...text.matchAll(/^ *```sh\n([\s\S]*?)^ *```$/gm)].map(([, block]) => block)
    if (blocks.length === 0) continue
    t.doesNotThrow(() => execFileSync('bash', ['-n'], { input: blocks.join('\n') }), page)
  }
})

t.test('every test that the table of invariants names is there', async (t) => {
  const [table] = /^(\|.*\n)+/m.exec(pages.get('docs/invariants.md')!)!
  const rows = table.split('\n').filter((line) => /^\| [^-\s]/.test(line))
  t.ok(rows.length > 30)
  const files = readdirSync(join(ROOT, 'test'), { recursive: true, encoding: 'utf8' })
  for (const row of rows) {
    const names = [...row.split('|')[2]!.matchAll(/`([^`]+)`/g)].map(([, name]) => name!)
    t.ok(names.length > 0, row)
    for (const name of names) {
      const wanted = name.endsWith('/') ? `${name}*` : `${name}.test.ts`
      const form = new RegExp(`^${wanted.replaceAll('.', '\\.').replaceAll('*', '.*')}$`)
      t.ok(
        files.some((file) => form.test(file)),
        name
      )
    }
  }
})
