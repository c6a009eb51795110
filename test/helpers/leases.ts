import { CouchClient } from '../../lib/couch/client.js'
import { CouchDatabase } from '../../lib/couch/database.js'
import type { LeaseLostError } from '../../lib/errors.js'
import type { Lease } from '../../lib/lease/lease.js'
import { LeaseDocument } from '../../lib/lease/lease-document.js'
import { Leases } from '../../lib/lease/leases.js'

export const LEASE_DATABASE = 'system'
export const LEASE = 'athena_backup_lease'

export interface LeasesOf {
  document: LeaseDocument
  leases: Leases
  close(): Promise<void>
}

/** Returns the leases of one instance, which last for `ttl` milliseconds, and wait `control` for an answer. */
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
