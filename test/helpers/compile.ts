import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import ts from 'typescript'

const ROOT = join(__dirname, '..', '..')

/** Compiles folders of this project into the same folders of `directory`, as the build does. */
export function compile(directory: string, folders: readonly string[]): void {
  for (const folder of folders) {
    for (const file of readdirSync(join(ROOT, folder))) {
      if (!file.endsWith('.ts') || file.endsWith('.d.ts')) continue
      const { outputText } = ts.transpileModule(readFileSync(join(ROOT, folder, file), 'utf8'), {
        compilerOptions: {
          module: ts.ModuleKind.CommonJS,
          target: ts.ScriptTarget.ES2022,
          esModuleInterop: true
        }
      })
      const target = join(directory, folder, file.replace(/\.ts$/, '.js'))
      mkdirSync(dirname(target), { recursive: true })
      writeFileSync(target, outputText)
    }
  }
}
