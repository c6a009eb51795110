/** Refuses imports between the rooms of `lib/` that do not point downward. Run by `npm run lint`. */
import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import ts from 'typescript'

const ROOT = join(__dirname, '..')
/** The code of the package by its own name, which leads to the top. */
const PACKAGE = /^fastify-couchdb-backups(?!\/package\.json)/

const LOWER = [
  'json',
  'ids',
  'bytes',
  'waits',
  'errors.ts',
  'own-documents.ts',
  'databases.ts',
  'bytes/cut-text.ts bytes/views.ts',
  'types'
]
/** Rooms and files of `lib/`, from top to bottom: each may import what stands below, and nothing of its own line. */
const ORDERS = [
  [
    'index.mts',
    'index.ts',
    'schemas',
    'operations',
    'options.ts',
    'retention',
    'schedule',
    'verify diff',
    'backup restore',
    'format',
    'repository',
    'lease',
    'spool',
    'seal',
    'webhooks observe',
    'couch',
    'selector',
    ...LOWER
  ],
  // Routes know the engine by its operations alone.
  ['index.ts', 'routes', 'schemas', 'operations', 'options.ts', ...LOWER],
  ['operator', 'routes', 'schemas', ...LOWER],
  ['cli', ...LOWER]
].map((order) => order.map((line) => line.split(' ')))

/** Longest first: a file of a room may stand at a place of its own. */
const ROOMS = [...new Set(ORDERS.flat(2))].sort((a, b) => b.length - a.length)

/** Returns the room of a file, given by its path below the root; `undefined` where it has none. */
function roomOf(path: string): string | undefined {
  const name = path.replace(/^lib\//, '')
  return ROOMS.find((room) => name === room || name.startsWith(`${room}/`))
}

function mayImport(from: string | undefined, to: string | undefined): boolean {
  if (from === undefined || to === undefined) return false
  const levelOf = (order: string[][], room: string) => order.findIndex((line) => line.includes(room))
  return (
    from === to ||
    ORDERS.some((order) => levelOf(order, from) !== -1 && levelOf(order, from) < levelOf(order, to))
  )
}

/** Finds the imports of a file that its room must not have, of whatever kind: of types and `import()` as well. */
export function refusedImports(path: string, text: string): string[] {
  const { importedFiles, referencedFiles } = ts.preProcessFile(text, true, true)
  return [...importedFiles, ...referencedFiles]
    .map(({ fileName }) => fileName)
    .filter((specifier) => {
      if (!specifier.startsWith('.')) return PACKAGE.test(specifier)
      const target = posix.join(posix.dirname(path), specifier).replace(/\.(m?)js$/, '.$1ts')
      return !mayImport(roomOf(path), roomOf(target))
    })
}

function main(): void {
  for (const directory of ['lib', 'types']) {
    for (const file of readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' })) {
      if (!/\.m?ts$/.test(file)) continue
      const path = posix.join(directory, file)
      for (const specifier of refusedImports(path, readFileSync(join(ROOT, path), 'utf8'))) {
        console.error(`${path} must not import ${specifier}: see "Rooms" in docs/architecture.md`)
        process.exitCode = 1
      }
    }
  }
}

if (require.main === module) main()
