import type { Test } from 'tap'
import { CouchClient } from '../../lib/couch/client.js'
import { CouchDatabase } from '../../lib/couch/database.js'
import type { LeaseLostError } from '../../lib/errors.js'
import type { Lease } from '../../lib/lease/lease.js'
import { LeaseDocument } from '../../lib/lease/lease-document.js'
import { Leases } from '../../lib/lease/leases.js'
import { LEASE } from './database.js'
import { type Strike, startSimulatedCluster } from './simulated-cluster.js'

/** The database of leases without a console. */
export const LEASE_DATABASE = 'system'

interface LeasesOf {
  document: LeaseDocument
  leases: Leases
  close(): Promise<void>
}

/** Returns the leases of one instance. They last for `ttl` milliseconds, and wait for an answer for `control`. */
export function leasesOn(url: string, ttl: number, control = ttl / 3): LeasesOf {
  const client = new CouchClient({
    connect: () => ({ origin: url, basePath: '', headers: {}, dispatcher: undefined }),
    retry: { attempts: 3, wait: 10, longest: 20 },
    control,
    idle: ttl
  })
  const database = new CouchDatabase(client, LEASE_DATABASE)
  const document = new LeaseDocument(database)
  return {
    document,
    leases: new Leases(document, new LeaseDocument(database), ttl),
    close: () => client.close()
  }
}

/** Takes the lease for a backup. */
export const acquire = (
  leases: Leases,
  id: string,
  onLost: (error: LeaseLostError) => void = () => {}
): Promise<Lease> =>
  leases.acquire({
    holder: (carried) => ({ holder: { operation: 'backup', id, instance: id }, carried: carried + 1n }),
    onLost
  })

/** Starts a database with one replica, and instances whose leases last for `ttl` milliseconds. */
export async function startLeases(t: Test, ttl: number) {
  const cluster = await startSimulatedCluster({ n: 1 })
  t.teardown(() => cluster.close())
  const url = cluster.urls[0]!
  const recreate = async () => {
    for (const method of ['DELETE', 'PUT']) await fetch(`${url}/${LEASE_DATABASE}`, { method })
  }
  await recreate()
  const instance = (): LeasesOf => {
    const made = leasesOn(url, ttl, 5000)
    t.teardown(() => made.close())
    return made
  }
  return {
    instance,
    /** Deletes the database and creates it again. */
    recreate,
    /** Lets writes of the lease fail. */
    fail: (strike: Partial<Strike>) =>
      cluster.strike({
        method: 'PUT',
        path: /athena_backup_lease/,
        answer: { status: 500, error: 'internal_server_error' },
        ...strike
      }),
    /** Returns the number of writes so far. */
    writes: () => cluster.requests.filter(({ method }) => method === 'PUT').length,
    /** Returns the kind of the operation that the stored lease names, if any. */
    held: () => /"operation":"([a-z]+)"/.exec(cluster.leaves(LEASE_DATABASE, LEASE)[0]?.body ?? '')?.[1],
    /** Writes the lease by hand, over the stored one unless it has another `_rev`. */
    async put(lease: object, query = '') {
      const [_rev] = cluster.leaves(LEASE_DATABASE, LEASE).map(({ rev }) => rev)
      const body = JSON.stringify({ _rev, type: LEASE, ...lease })
      await fetch(`${url}/${LEASE_DATABASE}/${LEASE}${query}`, { method: 'PUT', body })
    }
  }
}
