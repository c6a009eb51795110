import t from 'tap'
import { writeCompressedUpload } from '../helpers/compressed-upload.js'
import { documents } from '../helpers/shapes.js'
import { prepareTurns } from '../helpers/turns-run.js'

/** Milliseconds of processor time that a turn may take: less than each of these took with undivided work. */
const MOST = 30

t.test('many small documents in few compressed bytes are read and compared in short turns', async (t) => {
  const { run, fill, file } = await prepareTurns(t, MOST)
  await fill(documents(10, 100))
  const { id } = await run('backup', { operation: 'backup' })
  const small = function* () {
    for (let i = 0; i < 300_000; i++) yield '{"_id":"a"}'
  }
  await writeCompressedUpload(file, small())
  // 55 ms.
  const { writes } = await run('dry run of an upload', { operation: 'upload', id, file, dryRun: true })
  t.equal(writes, 1)
})

t.test('ids of megabytes are backed up, compared and restored in short turns', async (t) => {
  const { run, fill, file } = await prepareTurns(t, MOST)
  const id = 'x'.repeat(3_900_000)
  await fill(Array.from({ length: 4 }, (_, i) => `{"_id":"${id}${i}"}`))
  // 32 ms.
  const { id: backup } = await run('backup', { operation: 'backup' })
  await run('download', { operation: 'download', id: backup, file })
  // 41 ms.
  await run('dry run of an upload', { operation: 'upload', id: backup, file, dryRun: true })
  await fill([])
  const { writes } = await run('restore', { operation: 'restore', id: backup })
  t.equal(writes, 4)
})

t.test('documents that change while they are backed up are told apart in short turns', async (t) => {
  const { on, run, fill } = await prepareTurns(t, MOST)
  const count = 60_000
  const ids = Array.from({ length: count }, (_, i) => `d${i}`)
  await fill(
    ids.map((id) => `{"_id":"${id}"}`),
    5000
  )
  const changes = (async () => {
    for (let from = 0; from < count; from += 1000) {
      const docs = ids
        .slice(from, from + 1000)
        .map((id) => `{"_id":"${id}","_rev":"2-${'a'.repeat(32)}","a":1}`)
      await on.write(on.names.components, docs, false)
    }
  })()
  // 86 ms.
  const { id } = await run('backup', { operation: 'backup' })
  await changes
  await run('get', { operation: 'get', id })
  await run('dry run', { operation: 'restore', id, dryRun: true })
})
