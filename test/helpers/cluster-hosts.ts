import type { Test } from 'tap'
import { createMemoryWebhookStore } from '../../lib/index.js'
import type { BackupEvent, WebhookStore } from '../../types/index.js'
import { type Api, apiOf } from './api.js'
import { buildHost, type HostOptions, type TestHost } from './host.js'
import { poll } from './poll.js'
import type { ClusterDatabases } from './simulated-cluster.js'

/** Two operations of which one began before the other had ended. */
interface Overlap {
  began: string
  during: string
}

export interface ClusterHost extends TestHost {
  api: Api
  node: number
}

export interface ClusterHosts {
  hosts: ClusterHost[]
  overlaps: Overlap[]
  /** Errors of the operations that failed. */
  failures: string[]
  /** Errors of the calls that were tried again. */
  retries: string[]
  /** Waits until all accepted operations have ended. */
  allEnded(): Promise<void>
  close(): Promise<void>
}

/**
 * Starts hosts on nodes of a cluster, which share a store of transactions. Detects overlapping operations from outside:
 * when one reports its start, all others must have written their end, to a header or a transaction.
 */
export async function startClusterHosts(
  t: Test,
  databases: ClusterDatabases,
  nodes: readonly number[],
  options: HostOptions = {}
): Promise<ClusterHosts> {
  const { cluster, names } = databases
  const memory = createMemoryWebhookStore()
  const over = new Set<string>()
  const webhooks: WebhookStore = {
    ...memory,
    async update(id, update) {
      const updated = await memory.update(id, update)
      if (updated.status !== 'pending') over.add(id)
      return updated
    }
  }
  const running = new Set<string>()
  const overlaps: Overlap[] = []
  const failures: string[] = []
  const retries: string[] = []
  const isOver = (id: string) =>
    over.has(id) ||
    cluster.replicas.some(({ store }) =>
      store
        .get(names.system)
        ?.docs.get(id)
        ?.leaves.some(({ body }) => body.includes('"in_progress":false'))
    )
  const began = (id: string) => {
    for (const other of running) if (!isOver(other)) overlaps.push({ began: id, during: other })
    running.add(id)
  }
  const observe = (event: BackupEvent) => {
    if (event.type === 'backup_started') began(event.id)
    if (event.type === 'restore_started') began(event.tx_id)
    if (event.type === 'retry') retries.push(String(event.error))
    if (event.type === 'backup_failed' || event.type === 'restore_failed') failures.push(String(event.error))
    if (event.type === 'backup_finished' || event.type === 'backup_failed') running.delete(event.id)
    if (event.type === 'restore_finished' || event.type === 'restore_failed') running.delete(event.tx_id)
  }
  const hosts = await Promise.all(
    nodes.map(async (node): Promise<ClusterHost> => {
      const host = await buildHost(t, { on: databases.on(node), webhooks, onEvent: observe, ...options })
      return { ...host, api: apiOf(host), node }
    })
  )
  return {
    hosts,
    overlaps,
    failures,
    retries,
    async allEnded() {
      await poll('the end of what runs', () => running.size === 0 || undefined, 60_000, 5)
    },
    close: async () => {
      await Promise.all(hosts.map(({ app }) => app.close()))
    }
  }
}
