import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { apiOf, type SentBackup } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { load, seedDocuments } from './helpers/seed.js'

t.test('a running backup can be read when some of its databases are finished', async (t) => {
  const on = await setupDatabases(t)
  await load(on.couch.use(on.names.components), seedDocuments({ count: 6 }))
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
  } while (!running.dbs.athena_components)
  t.match(running, { id, in_progress: true, doc_count: 6 })
  t.match(running.dbs.athena_components, { doc_count: 6, docs: [] })
  t.notOk('athena_system' in running.dbs)

  release()
  await host.waitForBackup(id)
  const finished = await api.get(id)
  t.equal(finished.in_progress, false)
  t.equal(finished.dbs.athena_components!.docs.length, 6, 'the documents come when it has ended')
})
