import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import { publint } from 'publint'
import t, { type Test } from 'tap'

const ROOT = join(__dirname, '..')
const MODULES = join(ROOT, 'node_modules')
const PAGE = 'lib/operator/page'
const NAME = 'fastify-couchdb-backups'
const execute = promisify(execFile)
/** What tells about the package, beside its pages in `docs` and `bench`. */
const ABOUT = ['CHANGELOG.md', 'CONTRIBUTING.md', 'LICENSE', 'README.md', 'SECURITY.md', 'package.json']
const tsc = (...args: string[]) => execute(process.execPath, [join(MODULES, 'typescript/bin/tsc'), ...args])

interface Manifest {
  dependencies: Record<string, string>
  peerDependencies: Record<string, string>
  peerDependenciesMeta: Record<string, { optional?: boolean }>
}

/** Creates a project with the packed package and its dependencies, and nothing else. */
async function project(t: Test): Promise<{ directory: string; tarball: string; files: string[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'package-test-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  const stage = join(directory, 'stage')
  await mkdir(stage)
  // the linter checks the types
  await tsc('-p', join(ROOT, 'tsconfig.build.json'), '--noCheck', '--outDir', join(stage, 'dist'))
  await cp(join(ROOT, PAGE), join(stage, 'dist', PAGE), { recursive: true })
  for (const file of [...ABOUT, 'docs', 'bench', 'lib', 'test']) {
    await cp(join(ROOT, file), join(stage, file), { recursive: true })
  }
  const npm = ['pack', '--ignore-scripts', '--json', '--pack-destination', directory]
  const { stdout } = await execute('npm', npm, { cwd: stage })
  const [{ filename, files }] = JSON.parse(stdout)
  await rm(stage, { recursive: true })

  const installed = join(directory, 'node_modules', NAME)
  await mkdir(installed, { recursive: true })
  await execute('tar', ['xzf', join(directory, filename), '-C', installed, '--strip-components', '1'])
  const manifest: Manifest = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  const optional = (name: string) => manifest.peerDependenciesMeta[name]?.optional === true
  const declared = [
    ...Object.keys(manifest.dependencies),
    ...Object.keys(manifest.peerDependencies).filter((name) => !optional(name))
  ]
  for (const dependency of [...declared, '@types/node']) {
    const link = join(directory, 'node_modules', dependency)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(MODULES, dependency), link)
  }
  return {
    directory,
    tarball: join(directory, filename),
    files: files.map(({ path }: { path: string }) => path)
  }
}

/** Returns the files of a folder that are compiled: all but declarations. */
async function sources(folder: string): Promise<string[]> {
  const entries = await readdir(join(ROOT, folder), { recursive: true, withFileTypes: true })
  return entries
    .filter(({ name }) => /(?<!\.d)\.m?ts$/.test(name))
    .map(({ parentPath, name }) => relative(ROOT, join(parentPath, name)))
}

/** Registers the plugin, and requests something from a database that does not exist. */
const USE = `
async function use(plugin) {
  const app = Fastify()
  await app.register(plugin, {
    couch: nano('http://127.0.0.1:9'),
    databases: { components: 'a', sessions: 'b', system: 'c' },
    authorize: () => {},
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => {}
  })
  await app.register(operator, { prefix: '/operator', authorize: () => {} })
  const { statusCode, headers } = await app.inject('/api/v1/backups')
  const page = await app.inject('/operator/')
  const result = [typeof app.dbBackups.start, statusCode, headers['retry-after'], page.statusCode]
  await app.close()
  return result
}
`

t.test('the packed package', async (t) => {
  const { directory, tarball, files } = await project(t)
  const run = async (file: string, source: string) => {
    await writeFile(join(directory, file), source)
    return JSON.parse((await execute(process.execPath, [file], { cwd: directory })).stdout)
  }
  const works = ['function', 503, '5', 200]

  t.test('holds what it runs on and what tells about it, and nothing else', async (t) => {
    const compiled = (await sources('lib')).flatMap((file) => [
      `dist/${file.replace(/ts$/, 'js')}`,
      `dist/${file.replace(/\.(m?)ts$/, '.d.$1ts')}`
    ])
    const types = (await sources('types')).map((file) => `dist/${file.replace(/ts$/, 'd.ts')}`)
    const entries = await readdir(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    const pages = entries.filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)
    const linked = [
      'bench/MEASUREMENTS.md',
      'bench/RESULTS.md',
      'docs/images/operator-page.png',
      'docs/openapi.json',
      ...pages
    ]
    // what the operator page is made of is not compiled
    const page = (await readdir(join(ROOT, PAGE))).map((file) => `dist/${PAGE}/${file}`)
    t.ok(page.length > 10)
    t.strictSame(files.toSorted(), [...ABOUT, ...linked, ...compiled, ...types, ...page].sort())
  })

  t.test('holds what its readme links to', async (t) => {
    const readme = await readFile(join(ROOT, 'README.md'), 'utf8')
    const links = [...readme.matchAll(/\]\(([^)#\s]+)/g)].map(([, link]) => link!)
    const local = links.filter((link) => !/^https?:/.test(link))
    t.ok(local.length > 15)
    t.strictSame(
      local.filter((link) => !files.includes(link)),
      []
    )
  })

  t.test('has nothing that publint or arethetypeswrong find fault with', async (t) => {
    const { messages } = await publint({
      pkgDir: join(directory, 'node_modules', NAME),
      strict: true,
      pack: false
    })
    t.strictSame(messages, [])
    const attw = join(MODULES, '@arethetypeswrong/cli/dist/index.js')
    const { stdout } = await execute(process.execPath, [attw, tarball, '--format', 'json'])
    const { analysis, problems } = JSON.parse(stdout)
    t.equal(analysis.types.kind, 'included')
    t.strictSame(problems ?? {}, {})
  })

  t.test('can be required', async (t) => {
    const source = `
      const Fastify = require('fastify')
      const nano = require('nano')
      const module_ = require('${NAME}')
      const { operator } = require('${NAME}/operator')
      const { dbBackups, createMemoryWebhookStore } = module_
      ${USE}
      Promise.all([module_, dbBackups, module_.default].map(use)).then((r) => console.log(JSON.stringify(r)))
    `
    t.strictSame(await run('required.cjs', source), [works, works, works])
  })

  t.test('can be imported, by default and by name', async (t) => {
    const source = `
      import Fastify from 'fastify'
      import nano from 'nano'
      import byDefault, { dbBackups, createMemoryWebhookStore } from '${NAME}'
      import operator from '${NAME}/operator'
      ${USE}
      console.log(JSON.stringify([byDefault === dbBackups, await use(byDefault)]))
    `
    t.strictSame(await run('imported.mjs', source), [true, works])
  })

  t.test('brings the command-line client, which loads neither Fastify nor the engine', async (t) => {
    const installed = join(directory, 'node_modules', NAME)
    const { bin, version } = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8'))
    const client = join(installed, bin[NAME])
    t.match(await readFile(client, 'utf8'), /^#!\/usr\/bin\/env node\n/)
    const { stdout } = await execute(process.execPath, [client, '--version'], { cwd: directory })
    t.equal(stdout, `${version}\n`)
    const source = `
      process.argv.push('--version')
      require(${JSON.stringify(client)})
      setImmediate(() => console.log(JSON.stringify(Object.keys(require.cache))))
    `
    await writeFile(join(directory, 'client.cjs'), source)
    const lines = (await execute(process.execPath, ['client.cjs'], { cwd: directory })).stdout.split('\n')
    const loaded = (JSON.parse(lines[1]!) as string[])
      .filter((file) => file.startsWith(installed))
      .map((file) => file.slice(installed.length + 1))
    const others = loaded.filter((file) => !file.startsWith(join('dist', 'lib', 'cli')))
    const shared = [
      'bytes/inflater.js',
      'bytes/views.js',
      'databases.js',
      'json/json-bytes.js',
      'json/members.js',
      'json/parsed.js',
      'json/read-skip-list.js',
      'json/scanner.js',
      'own-documents.js',
      'waits/retry-after.js',
      'waits/steps.js'
    ]
    const paths = shared.map((file) => join('dist', 'lib', ...file.split('/')))
    t.strictSame(others.sort(), [...paths, 'package.json'])
    t.notMatch(lines[1], /node_modules.fastify[/\\]/, 'nor anything of Fastify')
  })

  t.test('types check, and so do the examples of the readme and the reference', async (t) => {
    const blocks = [...(await readFile(join(ROOT, 'README.md'), 'utf8')).matchAll(/^```ts\n(.*?)^```/gms)]
    const embedding = blocks.map(([, code]) => code!).find((code) => code.includes(`from '${NAME}'`))!
    const reference = await readFile(join(ROOT, 'docs/reference.md'), 'utf8')
    const operations = /^## `fastify.dbBackups`\n[\s\S]*?^```ts\n([\s\S]*?)^```/m.exec(reference)?.[1]
    t.ok(embedding && operations, 'both are there')
    await writeFile(join(directory, 'readme.mts'), embedding)
    await writeFile(
      join(directory, 'operations.mts'),
      `import type { FastifyInstance } from 'fastify'
      import type {} from '${NAME}'
      export async function use(fastify: FastifyInstance): Promise<number> {
        ${operations}
        return doc_count
      }`
    )
    const wrong = `import dbBackups from '${NAME}'
      import { operator } from '${NAME}/operator'
      import Fastify from 'fastify'
      // @ts-expect-error authorize is required
      Fastify().register(operator, { prefix: '/operator' })
      // @ts-expect-error the options are checked, so the types were found
      Fastify().register(dbBackups, { couch: 1 })
      `
    for (const file of ['wrong.mts', 'wrong.cts']) await writeFile(join(directory, file), wrong)
    const settings = {
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        target: 'ES2022',
        module: 'NodeNext',
        esModuleInterop: true,
        noEmit: true,
        skipLibCheck: false,
        types: ['node']
      },
      include: ['*.mts', '*.cts']
    }
    await writeFile(join(directory, 'tsconfig.json'), JSON.stringify(settings))
    const problems = await tsc('-p', directory).then(
      () => '',
      (error: { stdout: string }) => error.stdout
    )
    t.equal(problems, '')
  })
})
