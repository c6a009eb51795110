import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import t from 'tap'
import { setupDatabases } from './helpers/database.js'
import { startGate } from './helpers/gate.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'
import { load, seedDocuments } from './helpers/seed.js'

/** Three make a batch of 2 MiB, as base64. */
const ATTACHMENT = 500_000
const BATCHES = 7
const READ_AHEAD = 3
const READS = /_bulk_get.*attachments=true/

t.test('attachments are read ahead, in three batches at a time, from the first to the last', async (t) => {
  const on = await setupDatabases(t)
  const documents = { count: 3 * BATCHES, size: 100, attachmentEvery: 1, attachmentSize: ATTACHMENT }
  await load(on.couch.use(on.names.components), seedDocuments(documents), 3)
  const gate = await startGate(t, on)
  const { app } = await buildHost(t, { on, couch: gate.couch })
  const reads = () => gate.requests.filter((line) => READS.test(line)).length
  let release = gate.hold(READS)
  const { finished } = await app.dbBackups.start()
  for (const asked of [READ_AHEAD, 2 * READ_AHEAD, BATCHES]) {
    await poll(`${asked} batches`, () => (reads() >= asked ? true : undefined))
    await delay(200)
    t.equal(reads(), asked)
    release()
    // what was held has passed, and what comes next is held
    await setImmediate()
    release = gate.hold(READS)
  }
  release()
  t.match(await finished, { dbs: { athena_components: { doc_count: documents.count } } })
})
