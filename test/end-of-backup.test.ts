import t from 'tap'
import type { BackupEvent } from '../types/index.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'
import { buildHost } from './helpers/host.js'
import { startPagingProxy } from './helpers/relay.js'
import { load, seedDocuments } from './helpers/seed.js'

t.test(
  'a backup whose header was finished is complete, though the header cannot be read any more',
  async (t) => {
    const on = await setupDatabases(t)
    await load(on.couch.use(on.names.components), seedDocuments({ count: 3 }))
    const faults = await startFaultProxy(t, on.url)
    const events: BackupEvent[] = []
    let checked = false
    let finished = false
    const { couch } = await startPagingProxy(t, faults.url, {
      page: undefined,
      async before(line) {
        if (line.includes('startkey=%22backup_manifest_')) checked = true
        if (!checked || finished || !/^PUT \S*\/03_ibp_db_backup_/.test(line)) return
        // The header is written last, after it was checked that all chunks are there.
        finished = true
        faults.add({ method: 'GET', path: /\/03_ibp_db_backup_/, fault: 'status_503', times: 1e6 })
      }
    })
    const host = await buildHost(t, { on, couch, onEvent: (event) => void events.push(event) })
    const started = await host.app.dbBackups.start()
    const outcome = await started.finished
    t.ok(finished)
    await faults.clear()
    t.strictSame(JSON.parse(JSON.stringify(outcome)), await host.app.dbBackups.summary(started.id))
    t.match(outcome, { in_progress: false, error: undefined, doc_count: 3 })
    t.strictSame(
      events.map(({ type }) => type).filter((type) => type !== 'backup_database_finished'),
      ['backup_started', 'backup_finished']
    )
    const lease = await on.couch.use(on.names.system).get('athena_backup_lease')
    t.notOk('operation' in lease, 'the lease is free')
  }
)
