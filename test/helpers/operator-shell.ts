import { chmodSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { compileCli, SHORT_PROCESS } from './cli.js'
import type { Example } from './example-process.js'
import { openShell, type Shell } from './shell-page.js'

/** Returns the environment file of a console that the page on disaster recovery asks its reader to write. */
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

interface OperatorShell extends Shell {
  directory: string
}

/** Opens a shell as an operator has it, with the command-line client and with these files in its directory. */
export function openOperatorShell(
  t: Test,
  files: Record<string, string>,
  env: NodeJS.ProcessEnv = {}
): OperatorShell {
  const root = t.testdir({ bin: {}, client: {}, work: files })
  const main = compileCli(join(root, 'client'))
  // the real npx would look for the published package
  const npx = join(root, 'bin', 'npx')
  writeFileSync(npx, `#!/bin/sh\nshift\nexec '${process.execPath}' ${SHORT_PROCESS} '${main}' "$@"\n`)
  chmodSync(npx, 0o755)
  const directory = join(root, 'work')
  const shell = openShell(t, directory, { ...env, PATH: `${join(root, 'bin')}:${process.env.PATH}` })
  return { ...shell, directory }
}
