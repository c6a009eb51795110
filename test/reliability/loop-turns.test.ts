import t from 'tap'
import { documents, many, mixed, wide } from '../helpers/shapes.js'
import { prepareTurns } from '../helpers/turns-run.js'

const MB = 1000 * 1000
/** Milliseconds of processor time that a turn may take: the aim. */
const AIM = 25

t.test('a document of 7 MB in small values is backed up, compared and restored in short turns', async (t) => {
  const { run, fill, file } = await prepareTurns(t)
  await fill(mixed(1))
  const { id } = await run('backup', { operation: 'backup' })
  await run('download', { operation: 'download', id, file })
  await run('dry run of an upload', { operation: 'upload', file, id, dryRun: true })
  await fill(mixed(1, 1))
  // 213 ms.
  const { writes } = await run('restore over another version', { operation: 'restore', id })
  t.equal(writes, 1)
})

t.test('five documents of 7 MB that changed are restored in short turns', async (t) => {
  const { run, fill } = await prepareTurns(t)
  await fill(documents(5, 7 * MB))
  const { id } = await run('backup', { operation: 'backup' })
  await fill(documents(5, 7 * MB, 1))
  // 94 ms.
  const { writes } = await run('restore', { operation: 'restore', id })
  t.equal(writes, 5)
})

t.test('a document with 20,000 attachments is backed up, checked and compared in short turns', async (t) => {
  const { run, fill, file } = await prepareTurns(t)
  await fill([many(20_000)])
  // 98 ms.
  const { id } = await run('backup', { operation: 'backup' })
  await run('download', { operation: 'download', id, file })
  // 141 ms.
  const { writes } = await run('dry run of an upload', { operation: 'upload', file, id, dryRun: true })
  t.equal(writes, 0)
})

t.test(
  'a document of 600,000 members is backed up, compared and restored in turns of 25 ms at most',
  async (t) => {
    const { run, fill, file } = await prepareTurns(t, AIM)
    await fill([wide(600_000)])
    const { id } = await run('backup', { operation: 'backup' })
    await run('download', { operation: 'download', id, file })
    const same = await run('dry run of an upload', { operation: 'upload', file, id, dryRun: true })
    t.equal(same.writes, 0)
    await fill([wide(600_000, 1)])
    await run('dry run over another version', { operation: 'restore', id, dryRun: true })
    await run('upload over another version', { operation: 'upload', file, id })
    await fill([wide(600_000, 1)])
    const { writes } = await run('restore over another version', { operation: 'restore', id })
    t.equal(writes, 1)
    await fill([])
    await run('restore', { operation: 'restore', id })
  }
)
