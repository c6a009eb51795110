import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

const ROOT = join(__dirname, '..', '..')
const COMPILER: { version: string } = require('typescript/package.json')
/** Keeps what was compiled, by the digest of its source: many processes of a run need the same files. */
const STORE = join(ROOT, '.tap', 'compiled')

/** Compiles folders of this project into the same folders of `directory`, as the build does. */
export function compile(directory: string, folders: readonly string[]): void {
  for (const folder of folders) {
    for (const file of readdirSync(join(ROOT, folder))) {
      if (!file.endsWith('.ts') || file.endsWith('.d.ts')) continue
      const target = join(directory, folder, file.replace(/\.ts$/, '.js'))
      write(target, compiled(readFileSync(join(ROOT, folder, file), 'utf8')))
    }
  }
}

/**
 * Compiles a file of this project and those that it imports, so that a process starts without a loader of TypeScript.
 * @returns the path of the compiled file
 */
export function compileFile(file: string): string {
  const files = new Set([file])
  for (const next of files) {
    const target = targetOf(next)
    const text = compiled(readFileSync(next, 'utf8'))
    if (!existsSync(target) || readFileSync(target, 'utf8') !== text) write(target, text)
    for (const [, imported] of text.matchAll(/\brequire\("(\.[^"]+)\.js"\)/g)) {
      const source = join(dirname(next), `${imported}.ts`)
      if (existsSync(source)) files.add(source)
    }
  }
  return targetOf(file)
}

/** Returns where the compiled file of a source, or a folder beside it, lies. */
export const targetOf = (path: string): string =>
  join(ROOT, '.tap', 'built', relative(ROOT, path)).replace(/\.ts$/, '.js')

function compiled(source: string): string {
  const kept = join(STORE, `${createHash('sha256').update(COMPILER.version).update(source).digest('hex')}.js`)
  if (existsSync(kept)) return readFileSync(kept, 'utf8')
  // loaded only here, since that takes longer than reading what was kept
  const ts: typeof import('typescript') = require('typescript')
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: {
      module: ts.ModuleKind.CommonJS,
      target: ts.ScriptTarget.ES2022,
      esModuleInterop: true
    }
  })
  write(kept, outputText)
  return outputText
}

/** Writes a file at once, since other processes may read it. */
function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true })
  const part = `${file}.${process.pid}`
  writeFileSync(part, text)
  renameSync(part, file)
}
