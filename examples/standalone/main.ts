import { join } from 'node:path'
import { parseArgs } from 'node:util'
import nano from 'nano'
import type { BackupsOptions, ScheduleOptions } from '../../types/index.js'
import { Access } from './access.js'
import { completeCredentials, givenCredentials } from './credentials.js'
import { type EmbeddedCouch, startEmbeddedCouch } from './embedded-couch.js'
import { seed } from './seed.js'
import { buildConsole } from './server.js'
import { welcome } from './welcome.js'

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

The logins and API keys are made at the first start and kept with the data. Choose your own by MANAGER_PASSWORD and
READER_PASSWORD, and by MANAGER_KEY and READER_KEY, each KEY:SECRET with a secret of 32 characters or more.
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
  const given = givenCredentials(process.env)

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
  const seeding = await seed(couch, names, { empty: values['no-seed'] })
  const system = couch.use(names.system)
  const credentials = await completeCredentials(system, given)
  const { MANAGER_KEY, MANAGER_PASSWORD, READER_KEY, READER_PASSWORD } = credentials.values
  const access = new Access(system, { manager: MANAGER_PASSWORD, reader: READER_PASSWORD })
  await access.storeKeys({ manager: MANAGER_KEY, reader: READER_KEY })

  const schedule = values.schedule === 'none' ? undefined : scheduleOf(values.schedule)
  const app = await buildConsole({ couch, names, access, schedule, backups: backupsOf(values['backups-db']) })
  const url = await app.listen({ port, host: '127.0.0.1' }).catch(async (error: NodeJS.ErrnoException) => {
    // a scheduled backup may have begun
    await app.close()
    await embedded?.close()
    if (error.code !== 'EADDRINUSE') throw error
    throw new Error(`port ${port} is in use: stop what listens there, or choose another port with --port`)
  })

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

  const place = !embedded ? 'CouchDB' : values.memory ? 'memory' : join(values.data, 'couch')
  console.log(
    welcome({ url, couchUrl, embedded: embedded !== undefined, place, names, seeding, credentials })
  )
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
