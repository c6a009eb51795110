import { join } from 'node:path'
import { parseArgs } from 'node:util'
import nano from 'nano'
import type { BackupsOptions, ScheduleOptions } from '../../types/index.js'
import { Access } from './access.js'
import { DOCS_PATH } from './api-docs.js'
import { type EmbeddedCouch, startEmbeddedCouch } from './embedded-couch.js'
import { seed } from './seed.js'
import { buildConsole } from './server.js'

const HOUR = 3_600_000
const NIGHTLY = '0 1 * * *'

const USAGE = `Usage: npm start -- [options]

  --port PORT        port to listen on, 0 for any free port (default $PORT or 3000)
  --data DIR         directory of the embedded database (default ./data)
  --memory           keep the data in memory only
  --prefix-db NAME   prefix of the database names (default athena)
  --no-seed          leave new databases empty, for example to restore into them
  --schedule CRON    when to make backups, in UTC, or none (default '${NIGHTLY}', unless one is younger than 12 hours)
  --backups-db NAME  database of the backups, with BACKUPS_COUCHDB_URL
  --help             show this help

Set COUCHDB_URL, with credentials in it, to use a CouchDB instead of the embedded database.
Set BACKUPS_COUCHDB_URL, with credentials in it, to keep the backups on a CouchDB of their own.
Set LOG_LEVEL to change the log level (default warn).`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: process.env.PORT ?? '3000' },
      data: { type: 'string', default: 'data' },
      memory: { type: 'boolean', default: false },
      'prefix-db': { type: 'string', default: 'athena' },
      'no-seed': { type: 'boolean', default: false },
      schedule: { type: 'string', default: NIGHTLY },
      'backups-db': { type: 'string' },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) {
    console.log(USAGE)
    return
  }
  const port = Number(values.port)
  if (!/^\d+$/.test(values.port) || port > 65_535) throw new Error(`--port ${values.port} is not a port`)
  const prefix = values['prefix-db']
  if (!/^[a-z][a-z0-9_-]*$/.test(prefix)) {
    throw new Error(
      `--prefix-db ${prefix} is not valid: begin with a lower case letter, then use lower case letters, digits, _ and -`
    )
  }

  const embedded: EmbeddedCouch | undefined = process.env.COUCHDB_URL
    ? undefined
    : await startEmbeddedCouch({ directory: join(values.data, 'couch'), memory: values.memory })
  const couchUrl = embedded?.url ?? process.env.COUCHDB_URL ?? ''
  const couch = nano(couchUrl)
  const names = {
    components: `${prefix}_components`,
    sessions: `${prefix}_sessions`,
    system: `${prefix}_system`
  }
  const { seeded } = await seed(couch, names, { empty: values['no-seed'] })
  const access = new Access(couch.use(names.system))
  const passwords = await access.resetDemoPasswords({
    'admin@example.com': 'manager',
    'reader@example.com': 'reader'
  })
  const keys = await access.createDemoKeys()

  const schedule = values.schedule === 'none' ? undefined : scheduleOf(values.schedule)
  const app = await buildConsole({ couch, names, access, schedule, backups: backupsOf(values['backups-db']) })
  const url = await app.listen({ port, host: '127.0.0.1' })

  let stoppingSince: number | undefined
  const stop = async () => {
    if (stoppingSince !== undefined) {
      // one Ctrl-C may arrive twice: from the terminal and, passed on, from npm
      if (performance.now() - stoppingSince > 500) process.exit(1)
      return
    }
    stoppingSince = performance.now()
    console.log('\nStopping. Press Ctrl-C again to stop at once.')
    try {
      await app.close()
      await embedded?.close()
      process.exit(0)
    } catch (error) {
      console.error(error)
      process.exit(1)
    }
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)

  const { origin } = new URL(couchUrl)
  const kept = embedded ? (values.memory ? 'in memory' : join(values.data, 'couch')) : 'CouchDB'
  const login = (email: string) =>
    passwords[email] ? `${email} / ${passwords[email]}` : 'none until a backup with users is restored'
  console.log(`Console    ${url} (operator page: sign in with the manager's login)
API        ${url}${DOCS_PATH}
Database   ${origin} (${kept}): ${Object.values(names).join(', ')}${seeded ? ', seeded' : ''}

Credentials of this run, new at every start:
  manager  key ${keys.manager.key}:${keys.manager.secret}
           login ${login('admin@example.com')}
  reader   key ${keys.reader.key}:${keys.reader.secret}
           login ${login('reader@example.com')}

For another terminal:
  KEY='${keys.manager.key}:${keys.manager.secret}'
  READER='${keys.reader.key}:${keys.reader.secret}'
  URL=${url}
  API=$URL/ak/api/v2
Start a backup, list the backups, read one:
  curl -u $KEY -X POST $API/backups
  curl -u $KEY $API/backups
  curl -u $KEY $API/backups/ID -o backup.json
Append to it:
  curl -u $KEY -X PUT $API/backups/ID/attachments/apollo -H 'content-type: application/json' -d '{"attachment":"aGVsbG8="}'
Restore it, by its id or from the file, and follow the restore:
  curl -u $KEY -X PUT $API/backups/ID
  curl -u $KEY -X PUT $API/backups -H 'content-type: application/json' -T backup.json
  curl -u $READER $URL/ak/api/v1/webhooks/txs/TX
Use a session instead of a key, under /api:
  curl -c cookies.txt $URL/api/v2/auth/login -H 'content-type: application/json' -d '{"email":"admin@example.com","password":"PASSWORD"}'
  curl -b cookies.txt $URL/api/v2/backups
Try what the reader may not do (403):
  curl -u $READER -X POST $API/backups

Ctrl-C stops the server.`)
}

/** Returns where the backups are kept, when they have a server of their own. */
function backupsOf(database: string | undefined): BackupsOptions | undefined {
  const url = process.env.BACKUPS_COUCHDB_URL
  if (!url || !database) return undefined
  return { couch: nano(url), database }
}

/** Returns a schedule. A backup of the last twelve hours takes the place of the nightly one. */
function scheduleOf(cron: string): ScheduleOptions {
  return cron === NIGHTLY ? { cron, unlessYoungerThan: 12 * HOUR } : { cron }
}

main().catch((error: Error) => {
  console.error(error.message)
  process.exit(1)
})
