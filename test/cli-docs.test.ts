import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import { seed } from '../examples/standalone/seed.js'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import operator from '../lib/operator/index.js'
import type { DbBackupsOptions } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { openOperatorShell } from './helpers/operator-shell.js'

interface Example {
  command: string
  /** What it prints to stdout and stderr. */
  output: string[]
}

/** Returns the commands of the page with their output, by heading. */
function examplesOf(page: string): Map<string, Example[]> {
  const found = new Map<string, Example[]>()
  let heading = ''
  const text = readFileSync(join(__dirname, '..', page), 'utf8')
  for (const { groups } of text.matchAll(/^#+ (?<title>.+)$|^```text\n(?<code>[\s\S]*?)^```$/gm)) {
    if (groups!.title) heading = groups!.title
    for (const line of groups!.code?.trimEnd().split('\n') ?? []) {
      const examples = found.get(heading) ?? []
      found.set(heading, examples)
      if (line.startsWith('$ ')) examples.push({ command: line.slice(2), output: [] })
      else examples.at(-1)!.output.push(line)
    }
  }
  return found
}

/** Puts a word in place of what differs from run to run, and one space in place of several. */
const alike = (line: string): string =>
  line
    .replace(/03_ibp_db_backup_\d+/g, 'ID')
    .replace(/\b[0-9a-f]{32}\b/g, 'TX')
    .replace(/[\d.]+ (bytes|KiB)/g, 'SIZE')
    .replace(/[\d.]+ s\b/g, 'SPAN')
    .replace(/\d+ \w{3} \d{4}, \d\d:\d\d/g, 'TIME')
    .replace(/in \d+ (days|h|min)/g, 'AHEAD')
    .replace(/\s+/g, ' ')
    .trimEnd()

t.test('the examples of docs/cli.md print what the page shows', async (t) => {
  const on = await setupDatabases(t)
  const names = { ...on.names, backups: on.names.system }
  await seed(on.couch, names)
  const webhooks = createMemoryWebhookStore()
  const startHost = async (options: Partial<DbBackupsOptions> = {}): Promise<string> => {
    const app = Fastify()
    t.teardown(() => app.close())
    const authorize = () => undefined
    await app.register(dbBackups, {
      couch: on.couch,
      databases: on.names,
      authorize,
      webhooks,
      rebuildWhitelist() {},
      safety: false,
      ...options
    })
    app.get<{ Params: { id: string } }>('/ak/api/v1/webhooks/txs/:id', ({ params }) =>
      webhooks.get(params.id)
    )
    await app.register(operator, { prefix: '/operator', authorize })
    return app.listen({ port: 0, host: '127.0.0.1' })
  }
  const url = await startHost()
  const shell = openOperatorShell(t, {}, { BACKUPS_URL: url, BACKUPS_TOKEN: 'x', TZ: 'UTC' })

  /** What happens before a section, as the page tells it. */
  const before: Record<string, () => Promise<unknown>> = {
    restore: async () => {
      const system = on.couch.use<{ email?: string }>(on.names.system)
      await system.insert({ ...(await system.get('user_admin')), email: 'new@example.com' })
    },
    diff: () => on.couch.use(on.names.components).insert({} as never, 'org2peer1'),
    // One with a schedule would have made the first backup by itself.
    'schedule, prune, rm': async () => {
      const schedule = { cron: '0 2 1 1 *', timezone: 'UTC' }
      const scheduled = await startHost({ keep: { last: 1 }, schedule })
      await shell.run({ heading: 'another host', code: `export BACKUPS_URL=${scheduled}` })
    }
  }
  const examples = examplesOf('docs/cli.md')
  const headings = [
    'start',
    'list, status',
    'append',
    'get',
    'restore',
    'diff',
    'verify',
    'schedule, prune, rm'
  ]
  t.strictSame([...examples.keys()], headings, 'every section has an example')
  let id = ''
  for (const [heading, commands] of examples) {
    await before[heading]?.()
    for (const { command, output } of commands) {
      const code = `${command.replace(/03_ibp_db_backup_\d+/g, id)} 2>&1`
      const printed = await shell.run({ heading, code })
      id ||= /03_ibp_db_backup_\d+/.exec(printed)?.[0] ?? ''
      t.strictSame(printed.trimEnd().split('\n').map(alike), output.map(alike), command)
    }
  }
})
