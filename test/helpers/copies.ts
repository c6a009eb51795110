import nano from 'nano'
import type { Test } from 'tap'
import type { BackupEvent, CopyOutcome } from '../../types/index.js'
import { type ChainDatabases, documents, download, setupChain } from './chain.js'
import type { FaultProxy } from './fault-proxy.js'
import { buildHost, type HostOptions, type TestHost } from './host.js'
import { StoredBackupsOf } from './stored-backups.js'

/** A console with some documents, and another server that its backups are copied to. */
export interface CopySites {
  from: ChainDatabases
  to: ChainDatabases
  host: TestHost
  events: BackupEvent[]
  /** Copies a backup to the other server's database, or through a proxy. */
  copy(id: string, through?: FaultProxy, signal?: AbortSignal): Promise<CopyOutcome>
  /** The contents of the destination's database. */
  stored: StoredBackupsOf
  /** Builds a host of a console on the other server, whose databases have the same names. */
  there(options?: HostOptions): Promise<TestHost>
}

/** Time-outs that are soon over. */
export const QUICK = { timeouts: { lease: 2000, control: 1000, idle: 2000 } }

/** Sets up both sites, with no backup yet. */
export async function setupCopySites(
  t: Test,
  { count = 60, ...options }: HostOptions & { count?: number } = {}
): Promise<CopySites> {
  const from = await setupChain(t)
  const to = await setupChain(t)
  await from.write(from.names.components, documents(count))
  await from.write(from.names.sessions, documents(3))
  await from.write(from.names.system, documents(3))
  const events: BackupEvent[] = []
  const onEvent = (event: BackupEvent) => void events.push(event)
  const host = await buildHost(t, { on: from, databases: from.names, onEvent, ...QUICK, ...options })
  // a copy of this console would have the same names
  const names = { ...from.names, backups: to.names.backups }
  const there = async (more: HostOptions = {}) => {
    // on a real server they exist already, since both sites lie on it
    for (const name of [names.components, names.sessions, names.system]) await to.call('PUT', name)
    return buildHost(t, { on: to, databases: names, ...QUICK, ...options, ...more })
  }
  return {
    from,
    to,
    host,
    events,
    stored: new StoredBackupsOf(to, to.names.backups),
    there,
    copy: (id, through, signal) =>
      host.app.dbBackups.copy(id, {
        to: { couch: nano(through?.url ?? to.url), database: to.names.backups },
        ...(signal && { signal })
      })
  }
}

/** Tells whether the other server has a backup of this id. */
export async function isThere({ to }: CopySites, id: string): Promise<boolean> {
  return (await to.call('GET', `${to.names.backups}/${id}`)).type === 'athena_backup'
}

/** Checks that a host sends a copy with the same bytes as the other host sends the backup. */
export async function checkSame(t: Test, host: TestHost, there: TestHost, id: string): Promise<void> {
  const [sent, expected] = await Promise.all([download(there, id), download(host, id)])
  t.ok(sent.equals(expected), `${id}: the same bytes`)
}
