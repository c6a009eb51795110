import { join } from 'node:path'
import { parseArgs } from 'node:util'
import nano from 'nano'
import { Access } from './access.js'
import { type EmbeddedCouch, startEmbeddedCouch } from './embedded-couch.js'
import { seed } from './seed.js'
import { buildConsole } from './server.js'

const USAGE = `Usage: npm start -- [options]

  --port PORT        port to listen on; 0 takes a free one (PORT, default 3000)
  --data DIR         where the embedded database keeps its data (default ./data)
  --memory           keep the data in memory only
  --prefix-db NAME   first part of the databases' names (default athena)
  --help

COUCHDB_URL, with credentials in it, takes a CouchDB in place of the embedded database.
LOG_LEVEL sets the log level (default warn).`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      port: { type: 'string', default: process.env.PORT ?? '3000' },
      data: { type: 'string', default: 'data' },
      memory: { type: 'boolean', default: false },
      'prefix-db': { type: 'string', default: 'athena' },
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
      `--prefix-db ${prefix} does not begin a database name: lower case letters, digits, _ and -`
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
  const { seeded } = await seed(couch, names)
  const access = new Access(couch.use(names.system))
  const passwords = await access.resetDemoPasswords({
    'admin@example.com': 'manager',
    'reader@example.com': 'reader'
  })
  const keys = await access.mintDemoKeys()

  const app = await buildConsole({ couch, names, access })
  const url = await app.listen({ port, host: '127.0.0.1' })

  let stopping = false
  const stop = async () => {
    if (stopping) process.exit(1)
    stopping = true
    console.log('\nStopping; once more to stop at once.')
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
  const basic = ({ key, secret }: { key: string; secret: string }) => `-u '${key}:${secret}'`
  const api = `${url}/ak/api/v2`
  console.log(`Console    ${url}
Database   ${origin} (${kept}): ${Object.values(names).join(', ')}${seeded ? ', seeded' : ''}

Credentials of this run, new at every start:
  manager  key ${keys.manager.key}:${keys.manager.secret}
           login admin@example.com / ${passwords['admin@example.com']}
  reader   key ${keys.reader.key}:${keys.reader.secret}
           login reader@example.com / ${passwords['reader@example.com']}

Start a backup, list the backups, read one:
  curl ${basic(keys.manager)} -X POST ${api}/backups
  curl ${basic(keys.manager)} ${api}/backups
  curl ${basic(keys.manager)} ${api}/backups/ID -o backup.json
Append to it:
  curl ${basic(keys.manager)} -X PUT ${api}/backups/ID/attachments/apollo -H 'content-type: application/json' -d '{"attachment":"aGVsbG8="}'
Restore it, by its id or from the file, and follow the restore:
  curl ${basic(keys.manager)} -X PUT ${api}/backups/ID
  curl ${basic(keys.manager)} -X PUT ${api}/backups -H 'content-type: application/json' -T backup.json
  curl ${basic(keys.reader)} ${url}/ak/api/v1/webhooks/txs/TX
The same with a session, under /api:
  curl -c cookies.txt ${url}/api/v2/auth/login -H 'content-type: application/json' -d '{"email":"admin@example.com","password":"${passwords['admin@example.com']}"}'
  curl -b cookies.txt ${url}/api/v2/backups
Refused with 403, the reader lacks the action:
  curl ${basic(keys.reader)} -X POST ${api}/backups

Ctrl-C stops the server.`)
}

main().catch((error: Error) => {
  console.error(error.message)
  process.exit(1)
})
