import type { DatabaseNames } from '../../types/index.js'
import { USERS } from './access.js'
import { DOCS_PATH } from './api-docs.js'
import { type Credentials, nameOf, type Role, VARIABLES, type Variable } from './credentials.js'
import type { Seeding } from './seed.js'

export interface WelcomeOptions {
  /** Address of the console. */
  url: string
  couchUrl: string
  embedded: boolean
  /** The place of the data. */
  place: string
  names: DatabaseNames
  seeding: Seeding
  credentials: Credentials
}

/** Returns what the server prints when it is ready: addresses, credentials, and commands for another terminal. */
export function welcome(options: WelcomeOptions): string {
  const { url, couchUrl, place, names, seeding } = options
  const databases = [names.components, names.sessions, names.system].join(', ')
  const again = seeding === 'of an earlier start'
  return `Console    ${url} (operator page: sign in with the manager's login)
API        ${url}${DOCS_PATH}
Database   ${new URL(couchUrl).origin} (${place}): ${databases}${again ? '' : `, ${seeding}`}
${again ? '           These databases are from an earlier start. This start has seeded nothing.\n' : ''}
${credentialLines(options)}

${variableLines(options)}
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
List the documents of a database:
  curl $DB/${names.components}/_all_docs

Ctrl-C stops the server.`
}

/** Returns the logins and keys. Those of the environment are not shown, since output is often kept. */
function credentialLines({ credentials: { values, given, made }, place }: WelcomeOptions): string {
  const lines = (['manager', 'reader'] as const).flatMap((role) => {
    const { key, password } = variablesOf(role)
    const email = Object.keys(USERS).find((one) => USERS[one]!.role === role)
    const shownKey = given.includes(key) ? `${nameOf(values[key])}, secret of ${key}` : values[key]
    const shownPassword = given.includes(password) ? `password of ${password}` : values[password]
    return [`  ${role.padEnd(8)} key ${shownKey}`, `           login ${email} / ${shownPassword}`]
  })
  return [headingOf(given.length, made.length, place), ...lines].join('\n')
}

function headingOf(given: number, made: number, place: string): string {
  if (given === VARIABLES.length) return 'Credentials, from the environment:'
  if (place === 'memory') return 'Credentials, kept in memory: the next start has others.'
  return made > 0
    ? 'Credentials, kept with the data: the next start has the same.'
    : 'Credentials, kept with the data by an earlier start:'
}

/** Returns assignments of variables. Secrets that the environment has are referred to by their names. */
function variableLines({ url, couchUrl, embedded, credentials }: WelcomeOptions): string {
  const { values, given } = credentials
  const needed: string[] = []
  const assigned = (variable: Variable) => {
    if (!given.includes(variable)) return `'${values[variable]}'`
    needed.push(variable)
    return `$${variable}`
  }
  const key = assigned('MANAGER_KEY')
  const reader = assigned('READER_KEY')
  if (!embedded) needed.push('COUCHDB_URL')
  return `For another terminal${needed.length > 0 ? `, in which ${needed.join(', ')} must be set as well` : ''}:
  KEY=${key}
  READER=${reader}
  URL=${url}
  API=$URL/ak/api/v2
  DB=${embedded ? couchUrl : `\${COUCHDB_URL%/}`}`
}

function variablesOf(role: Role): { key: Variable; password: Variable } {
  return role === 'manager'
    ? { key: 'MANAGER_KEY', password: 'MANAGER_PASSWORD' }
    : { key: 'READER_KEY', password: 'READER_PASSWORD' }
}
