import t from 'tap'
import { refusedImports } from '../.ci/imports.js'

/** Every way to import a module. */
const FORMS: Record<string, (specifier: string) => string> = {
  import: (specifier) => `import { a } from '${specifier}'`,
  'for its effect': (specifier) => `import '${specifier}'`,
  'of types': (specifier) => `import type { A } from '${specifier}'`,
  'export of all': (specifier) => `export * from '${specifier}'`,
  'export of types': (specifier) => `export type { A } from '${specifier}'`,
  dynamic: (specifier) => `const a = await import('${specifier}')`,
  'type of a module': (specifier) => `let a: typeof import('${specifier}')`,
  'type in a module': (specifier) => `let a: import('${specifier}').A`,
  require: (specifier) => `const a = require('${specifier}')`,
  reference: (specifier) => `/// <reference path='${specifier}' />`
}

/** Imports by the file that has them. */
const REFUSED: readonly [path: string, specifier: string][] = [
  ['lib/couch/a.ts', '../operations/operations.js'],
  ['lib/couch/a.ts', './../operations/operations.js'],
  ['lib/couch/a.ts', '../couch/../operations/operations.js'],
  ['lib/options.ts', './operations/operations.js'],
  ['lib/backup/a.ts', '../restore/plan.js'],
  ['lib/restore/a.ts', '../backup/backup-job.js'],
  ['lib/webhooks/a.ts', '../observe/log.js'],
  ['lib/errors.ts', './couch/errors.js'],
  ['lib/databases.ts', './own-documents.js'],
  ['lib/bytes/cut-text.ts', './body.js'],
  ['lib/cli/commands/a.ts', '../../couch/client.js'],
  ['lib/operator/a.ts', '../operations/operations.js'],
  ['lib/index.ts', './operator/index.js'],
  ['lib/operations/a.ts', '../cli/main.js'],
  ['lib/operations/a.ts', '../index.js'],
  ['lib/routes/a.ts', '../repository/appender.js'],
  ['lib/routes/a.ts', '../spool/held-bytes.js'],
  ['types/index.ts', '../lib/errors.js'],
  ['lib/json/a.ts', '../new-room/a.js'],
  ['lib/json/a.ts', '../../examples/standalone/main.js'],
  ['lib/new-room/a.ts', '../errors.js'],
  ['lib/couch/a.ts', 'fastify-couchdb-backups'],
  ['lib/couch/a.ts', 'fastify-couchdb-backups/operator']
]

const ALLOWED: readonly [path: string, specifier: string][] = [
  ['lib/index.ts', './operations/operations.js'],
  ['lib/index.ts', './routes/index.js'],
  ['lib/index.ts', './webhooks/memory-store.js'],
  ['lib/routes/a.ts', '../operations/operations.js'],
  ['lib/routes/a.ts', '../options.js'],
  ['lib/routes/a.ts', '../json/scanner.js'],
  ['lib/operator/a.ts', '../routes/authorize.js'],
  ['lib/operations/a.ts', '../options.js'],
  ['lib/couch/a.ts', './b.js'],
  ['lib/couch/a.ts', '../errors.js'],
  ['lib/bytes/body.ts', './cut-text.js'],
  ['lib/errors.ts', './bytes/cut-text.js'],
  ['lib/cli/commands/a.ts', '../client.js'],
  ['lib/cli/commands/a.ts', '../../json/scanner.js'],
  ['lib/cli/a.ts', '../../types/index.js'],
  ['lib/couch/a.ts', 'undici'],
  ['lib/couch/a.ts', 'node:fs']
]

for (const [form, textOf] of Object.entries(FORMS)) {
  t.test(`lint refuses imports that point upward: ${form}`, async (t) => {
    for (const [path, specifier] of REFUSED)
      t.strictSame(refusedImports(path, textOf(specifier)), [specifier], `${path}: ${specifier}`)
    for (const [path, specifier] of ALLOWED)
      t.strictSame(refusedImports(path, textOf(specifier)), [], `${path}: ${specifier}`)
  })
}
