/**
 * Plays every fault at every point of every operation, and writes the results into docs/fault-matrix.md. With files as
 * arguments, writes the results in them instead, as `FAULT_RESULTS` collects them.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type MatrixResult, merge, summaryOf, tableOf } from './fault-table.js'

const PAGE = join(__dirname, '../../docs/fault-matrix.md')
const BEGIN = '<!-- results: begin, written by npm run test:matrix -->'
const END = '<!-- results: end -->'

function play(): MatrixResult[] {
  const directory = mkdtempSync(join(tmpdir(), 'faults-'))
  const file = join(directory, 'results')
  try {
    const { status } = spawnSync(
      'tap',
      [
        '--disable-coverage',
        '--reporter=tap',
        '--jobs=1',
        '--timeout=0',
        'test/reliability/faults-*.test.ts'
      ],
      {
        stdio: 'inherit',
        shell: true,
        env: { FAULT_JOBS: '8', ...process.env, FAULT_MATRIX: 'whole', FAULT_RESULTS: file }
      }
    )
    process.exitCode = status ?? 1
    return read(file)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

const read = (file: string): MatrixResult[] =>
  readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))

const files = process.argv.slice(2)
const results = merge(files.length > 0 ? files.flatMap(read) : play())
const text = [BEGIN, summaryOf(results), ...results.map(tableOf), END].join('\n\n')
const page = readFileSync(PAGE, 'utf8')
const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)]
if (from < 0 || to < from) throw new Error(`${PAGE} has no markers for the results`)
writeFileSync(PAGE, page.slice(0, from) + text + page.slice(to + END.length))
