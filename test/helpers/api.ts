import type { LightMyRequestResponse } from 'fastify'
import type { BackupSummary, WebhookTransaction } from '../../types/index.js'
import type { FetchedDocument, Snapshot } from './database.js'
import type { TestHost } from './host.js'

/** What the get-backup API sends. */
export interface SentBackup extends Omit<BackupSummary, 'dbs' | 'attachments'> {
  dbs: Record<string, BackupSummary['dbs'][string] & { docs: FetchedDocument[] }>
  _attachments?: Record<string, string>
}

export interface Api {
  /** A request by a manager. `path` follows `/backups`. An object is sent as JSON. */
  call(
    method: 'GET' | 'POST' | 'PUT',
    path?: string,
    payload?: object | string | Buffer,
    headers?: Record<string, string>
  ): Promise<LightMyRequestResponse>
  /** Makes a backup and waits for its end. */
  backup(): Promise<string>
  get(id: string): Promise<SentBackup>
  /** Starts a restore of a backup's id or of the backup given, and waits for its end. */
  restore(source: string | object, query?: string): Promise<WebhookTransaction>
}

export function apiOf(host: TestHost, base = '/api/v1'): Api {
  const call: Api['call'] = (method, path = '', payload, headers) =>
    host.app.inject({
      method,
      url: `${base}/backups${path}`,
      headers: { ...host.as('manager'), ...(payload && { 'content-type': 'application/json' }), ...headers },
      payload: payload as string
    })
  const expecting = async (status: number, reply: Promise<LightMyRequestResponse>) => {
    const { statusCode, body } = await reply
    if (statusCode !== status) throw new Error(`${statusCode} ${body}`)
    return JSON.parse(body)
  }
  return {
    call,
    async backup() {
      const { id } = await expecting(202, call('POST'))
      const { error } = await host.waitForBackup(id)
      if (error) throw new Error(error)
      return id
    },
    get: (id) => expecting(200, call('GET', `/${id}`)),
    async restore(source, query = '') {
      const { url } = await expecting(
        202,
        typeof source === 'string' ? call('PUT', `/${source}${query}`) : call('PUT', query, source)
      )
      return host.waitForRestore(url)
    }
  }
}

/** One database of a backup as {@link Snapshot}, to be compared with what the database holds. */
export function snapshotOf(backup: SentBackup, key: string): Snapshot {
  return new Map(backup.dbs[key]!.docs.map((document) => [document._id, document]))
}

/** The JSON of a backup that holds these documents of `components`. */
export const backupOf = (docs: readonly object[], more: object = {}) => ({
  dbs: { athena_components: { docs } },
  ...more
})
