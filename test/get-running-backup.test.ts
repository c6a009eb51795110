import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { PROGRESS_INTERVAL } from '../lib/waits/at-intervals.js'
import { apiOf, type SentBackup } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'

t.test('a running backup can be read when some of its databases are finished', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 6 }))
  await load(on.couch.use(on.names.sessions), seedDocuments({ count: 3 }))
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch })
  const api = apiOf(host)
  const ofSystem = new RegExp(`${on.names.system}/_changes`)
  const release = gate.hold(ofSystem)
  const { id } = (await api.call('POST')).json()
  await gate.held(ofSystem)

  let running: SentBackup
  do {
    await delay(20)
    running = await api.get(id)
  } while (!running.dbs.athena_sessions)
  t.match(running, { id, in_progress: true, doc_count: 9 })
  t.match(running.dbs.athena_components, { doc_count: 6, docs: [] })
  t.notOk('athena_system' in running.dbs)
  t.match(host.app.dbBackups.running, [{ id, progress: { documents: 9 } }], 'so do those who run it')

  release()
  await host.waitForBackup(id)
  const finished = await api.get(id)
  t.equal(finished.in_progress, false)
  t.equal(finished.dbs.athena_components!.docs.length, 6, 'the documents come when it has ended')
})

t.test('a running backup tells how many documents of the current database it has', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 1500, size: 200 }))
  const gate = await startGate(t, on)
  const host = await buildHost(t, { on, couch: gate.couch })
  const reads = /_components\/_changes/
  const [read, store] = [gate.hold(reads), gate.hold(/PUT .*backup_chunk_/)]
  const { id, finished } = await host.app.dbBackups.start()
  await gate.held(reads)
  await delay(PROGRESS_INTERVAL)
  read()
  const running = await poll('the first progress', async () => {
    const summary = await host.app.dbBackups.summary(id)
    return summary.doc_count > 0 ? summary : undefined
  })
  t.match(running, { in_progress: true, doc_count: 1000, dbs: {} })
  store()
  t.match(await finished, { doc_count: 1500 })
})
