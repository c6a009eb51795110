import type { DatabaseNames } from '../types/index.js'
import { call, recreate, type Server, serverOf } from './dataset.js'
import type { Job } from './worker.js'

/** The databases of a measurement, on the server to measure. */
export interface BenchDatabases {
  server: Server
  names: Required<DatabaseNames>
  /** What every job on them has. */
  job: Pick<Job, 'url' | 'databases'>
}

/** Returns the address of the server to measure. @throws when `COUCHDB_URL` does not tell it */
export function serverUrl(): string {
  const url = (process.env.COUCHDB_URL ?? '').replace(/\/$/, '')
  if (!url) throw new Error('COUCHDB_URL is not set')
  return url
}

/** Measures on new databases whose names begin with `prefix`, and deletes them in the end. */
export async function onDatabases<T>(
  prefix: string,
  measure: (databases: BenchDatabases) => Promise<T>
): Promise<T> {
  const url = serverUrl()
  const server = serverOf(url)
  const names = {
    components: `${prefix}_components`,
    sessions: `${prefix}_sessions`,
    system: `${prefix}_system`,
    backups: `${prefix}_backups`
  }
  try {
    for (const name of Object.values(names)) await recreate(server, name)
    return await measure({ server, names, job: { url, databases: names } })
  } finally {
    for (const name of Object.values(names)) await call(server, 'DELETE', `/${name}`)
  }
}
