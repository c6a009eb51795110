/** Runs the crash tests with `--runs` crashes, as many in each kind of operation. */
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

/** A file for each kind of operation. */
const KINDS = readdirSync(join(__dirname, '../reliability')).filter((file) =>
  file.startsWith('crash-')
).length

const { values } = parseArgs({
  options: { runs: { type: 'string', default: '500' }, seed: { type: 'string', default: '1' } }
})
const runs = Number(values.runs)
const seed = Number(values.seed)
if (!Number.isInteger(runs) || runs < KINDS)
  throw new Error(`--runs must be a whole number of at least ${KINDS}`)
if (!Number.isInteger(seed)) throw new Error('--seed must be a whole number')

const { status } = spawnSync(
  'tap',
  ['--disable-coverage', '--reporter=tap', '--jobs=2', '--timeout=0', 'test/reliability/crash-*.test.ts'],
  {
    stdio: 'inherit',
    shell: true,
    // leases are longer, and more rigs wait for them at a time and for longer, than in a test run
    env: {
      CRASH_LEASE: '5000',
      CRASH_JOBS: '8',
      CRASH_PATIENCE: '300000',
      ...process.env,
      CRASH_RUNS: String(Math.ceil(runs / KINDS)),
      CRASH_SEED: String(seed)
    }
  }
)
process.exitCode = status ?? 1
