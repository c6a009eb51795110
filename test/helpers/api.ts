import type { LightMyRequestResponse } from 'fastify'
import type { BackupSummary, WebhookTransaction } from '../../types/index.js'
import type { FetchedDocument, Snapshot } from './database.js'
import type { TestHost } from './host.js'

/** A backup as the API sends it. */
export interface SentBackup extends Omit<BackupSummary, 'dbs' | 'attachments'> {
  dbs: Record<string, BackupSummary['dbs'][string] & { docs: FetchedDocument[] }>
  _attachments?: Record<string, string>
}

export interface Api {
  /** Sends a request as a manager. `path` follows `/backups`. An object is sent as JSON. */
  call(
    method: 'GET' | 'POST' | 'PUT',
    path?: string,
    payload?: object | string | Buffer,
    headers?: Record<string, string>
  ): Promise<LightMyRequestResponse>
  /** Makes a backup, and returns its id. */
  backup(): Promise<string>
  get(id: string): Promise<SentBackup>
  /** Restores a stored backup by its id, or a backup that is sent, and returns the ended transaction. */
  restore(source: string | object, query?: string): Promise<WebhookTransaction>
}

/** Returns the backup API of a host. */
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

/** Returns one database of a backup as a {@link Snapshot}, to compare it with what the database holds. */
export function snapshotOf(backup: SentBackup, key: string): Snapshot {
  return new Map(backup.dbs[key]!.docs.map((document) => [document._id, document]))
}

/** Returns a backup that holds these documents of `components`. */
export const backupOf = (docs: readonly object[], more: object = {}) => ({
  dbs: { athena_components: { docs } },
  ...more
})
