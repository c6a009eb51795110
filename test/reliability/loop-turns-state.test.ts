import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { TurnWatch } from '../../bench/turns.js'
import { TargetTable } from '../../lib/restore/target-table.js'
import { parseSkipLists } from '../../lib/routes/skip-list.js'
import { prepareTurns } from '../helpers/turns-run.js'

/** Milliseconds of processor time that a turn may take. */
const MOST = 25

t.test('a table of what a database holds grows in short turns', async (t) => {
  const longest = () => {
    const table = new TargetTable(0)
    let most = 0
    for (let i = 0; i < 450_000; i += 100) {
      const before = process.cpuUsage()
      for (let k = i; k < i + 100; k++) table.set(`doc ${k}`, { rev: '1-a' })
      const { user, system } = process.cpuUsage(before)
      most = Math.max(most, (user + system) / 1000)
    }
    return most
  }
  // the least of three, since the work of the garbage collector counts as well
  const took = Math.min(longest(), longest(), longest())
  t.comment(`${took.toFixed(1)} ms`)
  // 42 ms.
  t.ok(took <= MOST, `100 entries took ${took} ms`)
})

t.test('parameters that name 200,000 ids to skip are read in short turns', async (t) => {
  const ids = Array.from({ length: 200_000 }, (_, n) => `an_id_that_is_skipped_${n}`)
  const turns = new TurnWatch()
  await sleep(20)
  const { components } = await parseSkipLists({ skip_components: ids })
  await sleep(20)
  const { cpu } = turns.stop().longest
  t.equal(components?.length, ids.length)
  t.comment(`${cpu.toFixed(1)} ms`)
  // 68 ms.
  t.ok(cpu <= MOST, `the longest turn took ${cpu} ms`)
})

t.test('20,000 backups are listed in short turns', async (t) => {
  const { on, run } = await prepareTurns(t, MOST)
  const { id } = await run('backup', { operation: 'backup' })
  const stamp = 1_500_000_000_000
  for (let from = 0; from < 20_000; from += 5000) {
    const ids = Array.from({ length: 5000 }, (_, n) => id.replace(/[0-9]+$/, String(stamp + from + n)))
    await on.write(
      on.names.backups,
      ids.map((id) => `{"_id":"${id}","type":"athena_backup"}`)
    )
  }
  // 46 ms.
  await run('list', { operation: 'list', id })
})
