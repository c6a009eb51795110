import { createWriteStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import type { Job } from '../bench/worker.js'
import { CHUNK_BYTES } from '../lib/repository/layout.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { compileWorker, runInChild } from './helpers/measured-run.js'
import { load, seedDocuments } from './helpers/seed.js'
import { extent } from './helpers/settings.js'

const MiB = 1024 * 1024
/**
 * More than the buffers of any operation; in the long version more than an operation may take at all. The embedded
 * database is slow with more.
 */
const BACKUP_BYTES = extent(24, process.env.COUCHDB_URL ? 100 : 75) * MiB
const DOCUMENT_BYTES = 20_000

/**
 * V8 frees received buffers when those that are young take twice this, so the process has so much garbage at most. With
 * its default of 16 MiB a run on CouchDB took up to 72 MiB, of which 32 were such garbage and 16 young objects.
 */
const SEMI_SPACE = 1
/** Bytes that an operation may take above the idle server, whatever the size of the backup. */
const RESIDENT = 64 * MiB

/** Bytes of objects, of code that is compiled at its first use, and of running requests. */
const OBJECTS = 16 * MiB
/** Bytes of pieces that come from the database or go to it: in sockets, and in rows being put together. */
const PIECES = 4 * MiB
/** Bytes of buffers that each operation may use at a time. */
const BUFFERS = {
  // the chunk being filled, two being stored, and the compressed form of these two
  backup: 5 * CHUNK_BYTES + PIECES,
  // the chunk being sent and the next, each compressed and decompressed, and what the stream holds of the last one
  get: 5 * CHUNK_BYTES + PIECES,
  // a chunk, compressed and decompressed, eight bodies in flight and two being filled
  restore: 2 * CHUNK_BYTES + 10 * 352 * 1024 + PIECES,
  // the filters of repeated ids, a block in and out of the spool, the bodies
  upload: 3 * 2 * MiB + 10 * 352 * 1024 + PIECES
}

t.test(
  `a backup of ${BACKUP_BYTES / MiB} MiB is made, sent and restored within 64 MiB`,
  { timeout: 600_000 },
  async (t) => {
    const on = await setupDatabases(t)
    const { url, names, couch } = on
    const count = Math.ceil(BACKUP_BYTES / DOCUMENT_BYTES)
    await load(couch.use(names.components), seedDocuments({ count, size: DOCUMENT_BYTES }), 100)
    const directory = t.testdir()
    const worker = compileWorker(directory)

    const run = async (job: Omit<Job, 'url' | 'databases'>, nodeOptions: string[] = []) => {
      if (job.operation === 'restore' || job.operation === 'upload') {
        await couch.db.destroy(names.components)
        await couch.db.create(names.components)
      }
      return runInChild(worker, { url, databases: names, ...job }, { nodeOptions })
    }
    /** Checks memory in use against the budget of the code. More resident memory is garbage, which V8's option bounds. */
    const measure = async (operation: keyof typeof BUFFERS, job: Pick<Job, 'id' | 'file'>) => {
      const { growth: live } = await run({ operation, ...job, live: true })
      const result = await run({ operation, ...job }, [`--max-semi-space-size=${SEMI_SPACE}`])
      const told = (bytes: number) => `${(bytes / MiB).toFixed(1)} MiB`
      const buffers = `${operation} uses ${told(live.arrayBuffers)} of buffers`
      t.ok(live.arrayBuffers <= BUFFERS[operation], `${buffers}, of ${told(BUFFERS[operation])}`)
      t.ok(
        live.heapUsed <= OBJECTS,
        `${operation} uses ${told(live.heapUsed)} of objects, of ${told(OBJECTS)}`
      )
      t.ok(
        result.growth.rss <= RESIDENT,
        `${operation} takes ${told(result.growth.rss)} of ${told(RESIDENT)}`
      )
      return result
    }
    const restored = async () => (await couch.db.get(names.components)).doc_count

    const backup = await measure('backup', {})
    t.equal(backup.docs, count)
    t.ok(backup.rawBytes >= BACKUP_BYTES, `${backup.rawBytes} bytes were backed up`)
    const { id } = backup

    await measure('get', { id })

    await measure('restore', { id })
    t.equal(await restored(), count)

    const file = join(directory, 'backup.json')
    const { app } = await buildHost(t, { on })
    await pipeline((await app.dbBackups.get(id)).body, createWriteStream(file))
    t.ok((await stat(file)).size >= BACKUP_BYTES)
    await measure('upload', { id, file })
    t.equal(await restored(), count)
  }
)
