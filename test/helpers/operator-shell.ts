import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { compileCli } from './cli.js'
import type { Example } from './example-process.js'
import { openShell, type Shell } from './shell-page.js'

/** What the page on disaster recovery has its reader write down of a console. */
export function environmentFile({ url, couchUrl, prefix, manager }: Example): string {
  const [key, secret] = manager.split(':')
  const { origin, username, password } = new URL(couchUrl)
  return `BACKUPS_URL=${url}
BACKUPS_API_KEY=${key}
BACKUPS_API_SECRET=${secret}
COUCH_URL=${origin}
COUCH_USER=${username}
COUCH_PASSWORD=${password}
DB_COMPONENTS=${prefix}_components
DB_SESSIONS=${prefix}_sessions
DB_SYSTEM=${prefix}_system
`
}

export interface OperatorShell extends Shell {
  directory: string
}

/** The shell of an operator: the command-line client, and files in the directory that it runs in. */
export function openOperatorShell(
  t: Test,
  files: Record<string, string>,
  env: NodeJS.ProcessEnv = {}
): OperatorShell {
  const root = t.testdir({ bin: {}, client: {}, work: files })
  const main = compileCli(join(root, 'client'))
  // npx would look for the published package.
  const npx = join(root, 'bin', 'npx')
  writeFileSync(npx, `#!/bin/sh\nshift\nexec '${process.execPath}' '${main}' "$@"\n`)
  chmodSync(npx, 0o755)
  const directory = join(root, 'work')
  const shell = openShell(t, directory, { ...env, PATH: `${join(root, 'bin')}:${process.env.PATH}` })
  return { ...shell, directory }
}
