import { appendFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { setupDatabases } from './database.js'
import { createRig, type Operation, type Outcome, type Point, type Rig, seedSources } from './fault-cells.js'
import { type ActiveRule, FAULTS, type Fault } from './fault-proxy.js'
import { type CellResult, type MatrixResult, tableOf } from './fault-table.js'
import { spooledIn } from './spooled.js'

/** Faults that are played at every point. At `core` points, and for the whole matrix, all faults are played. */
const EVERYWHERE: readonly Fault[] = [
  'refuse',
  'cut_mid',
  'stall',
  'status_503',
  'html',
  'reply_lost',
  'effect_no_answer',
  'accepted',
  'shard_500',
  'conflict_storm',
  'stale'
]
/** How often a passing storm strikes. */
const STORM = 8
/** Requests that an operation may send in vain: it has to end, or to wait between them. */
const MOST_HITS = 400
const MOST_HITS_A_SECOND = 120
/** Plays every fault at every point rather than one of each kind. */
const WHOLE = process.env.FAULT_MATRIX === 'whole'
/** File to which the results of each matrix are appended as a line of JSON. */
const RESULTS = process.env.FAULT_RESULTS
/** Rigs that run at a time. More than cores, since a cell mostly waits for time-outs. */
const JOBS = Number(process.env.FAULT_JOBS ?? 5)

interface Cell {
  point: Point
  fault: Fault
  lasting: boolean
}

interface MatrixOptions {
  /** Points to play faults at. Default: all points of the operation. */
  points?: readonly string[]
  /** Faults to play. Default: all. */
  faults?: readonly Fault[]
}

/** Runs an operation with every fault at each of its points, and prints the results as a table. */
export async function runMatrix(t: Test, operation: Operation, options: MatrixOptions = {}): Promise<void> {
  const databases = await setupDatabases(t)
  const unhandled = catchUnhandled(t)
  const points = operation
    .points({ ...databases.names, backups: '' })
    .filter(({ name }) => options.points?.includes(name) ?? true)
  const queue = cellsOf(points, options.faults ?? FAULTS)
  const results: CellResult[] = []
  const newRig = async () => {
    const rig = await createRig(t, databases)
    await seedSources({ couch: rig.direct }, rig.names)
    return rig
  }
  const work = async () => {
    let rig = await newRig()
    for (let cell = queue.shift(); cell; cell = queue.shift()) {
      const { point, fault, lasting } = cell
      const what = `${fault} ${lasting ? 'lasting' : 'once'} at ${point.name}`
      const startedAt = performance.now()
      const outcome = await runCell(rig, operation, cell).catch((error: Error) => error)
      results.push({ point: point.name, fault, lasting, outcome: nameOf(outcome) })
      await rig.proxy.clear()
      if (outcome instanceof Error) {
        t.fail(`${what}: ${outcome.message}`, { stack: outcome.stack })
        // what the cell has left must not affect the next one
        rig = await newRig()
      } else t.pass(`${what}: ${outcome} (${Math.round(performance.now() - startedAt)} ms)`)
    }
  }
  await Promise.all(Array.from({ length: JOBS }, work))
  t.strictSame(unhandled, [], 'every rejection and exception is handled')
  const result: MatrixResult = {
    operation: operation.name,
    points: points.map((point) => ({
      name: point.name,
      except: FAULTS.filter((fault) => !canPlay(point, fault))
    })),
    cells: results,
    unhandled: unhandled.length
  }
  t.comment(tableOf(result))
  if (RESULTS) appendFileSync(RESULTS, `${JSON.stringify(result)}\n`)
}

/** Collects unhandled rejections and uncaught exceptions until the test ends. */
function catchUnhandled(t: Test): unknown[] {
  const unhandled: unknown[] = []
  const collect = (error: unknown) => unhandled.push(error)
  process.on('unhandledRejection', collect)
  process.on('uncaughtException', collect)
  t.teardown(() => {
    process.off('unhandledRejection', collect)
    process.off('uncaughtException', collect)
  })
  return unhandled
}

/** Returns the cells. Those that wait for time-outs come first, so that others run meanwhile. */
function cellsOf(points: readonly Point[], faults: readonly Fault[]): Cell[] {
  const slow = (fault: Fault) => (/stall|drip/.test(fault) ? 0 : 1)
  const ordered = [...faults].sort((a, b) => slow(a) - slow(b))
  const plays = (point: Point, fault: Fault) =>
    canPlay(point, fault) && (point.core || WHOLE || EVERYWHERE.includes(fault))
  return [true, false].flatMap((lasting) =>
    ordered.flatMap((fault) =>
      points.filter((point) => plays(point, fault)).map((point) => ({ point, fault, lasting }))
    )
  )
}

const canPlay = ({ only, except }: Point, fault: Fault): boolean =>
  only ? only.includes(fault) : !except?.includes(fault)

async function runCell(rig: Rig, operation: Operation, cell: Cell, attempt = 1): Promise<Outcome> {
  const { proxy, events, names } = rig
  const { point, fault, lasting } = cell
  await operation.prepare?.(rig)
  events.length = 0
  proxy.seen.length = 0
  const [own] = operation.points(names).filter(({ name }) => name === point.name)
  const times = lasting ? Number.POSITIVE_INFINITY : /_storm$/.test(fault) ? STORM : 1
  const rule: ActiveRule = proxy.add({ ...own, times, fault, refusedFor: 100 })
  const judge = await whileServing(rig, operation.run(rig)).finally(() => expectPatience(rule))
  await proxy.clear()
  const outcome = await judge()
  const left = await spooledIn(rig.spoolDirectory)
  if (left.length > 0) throw new Error(`left on disk: ${left}`)
  // the operation may have given up before that point, see expectWorking
  if (rule.hits === 0 && attempt < 3) return runCell(rig, operation, cell, attempt + 1)
  if (rule.hits === 0) throw new Error('the fault did not strike')
  return outcome
}

/** Throws when an operation repeated a failed request without end, or without waiting. */
function expectPatience({ hits, hitAt }: ActiveRule): void {
  const peak = Math.max(0, ...hitAt.map((at, i) => hitAt.findLastIndex((other) => other < at + 1000) - i + 1))
  if (hits > MOST_HITS || peak > MOST_HITS_A_SECOND) {
    throw new Error(`no end: ${hits} requests in vain, up to ${peak} in a second`)
  }
}

/** Waits for `work`, and throws when the host does not serve its other routes meanwhile. */
async function whileServing<T>(rig: Rig, work: Promise<T>): Promise<T> {
  let done = false
  const over = work.finally(() => {
    done = true
  })
  const asking = (async () => {
    do {
      const { json } = await rig.call('GET', '/alive')
      if (!(json as { alive?: boolean }).alive) throw new Error('the host does not serve its other routes')
      await Promise.race([delay(250), over.catch(() => undefined)])
    } while (!done)
  })()
  const [result] = await Promise.all([over, asking])
  return result
}

function nameOf(outcome: Outcome | Error): CellResult['outcome'] {
  if (!(outcome instanceof Error)) return outcome
  if (outcome.message.startsWith('FALSE SUCCESS')) return 'false success'
  return /hangs|did not end within|^no end/.test(outcome.message) ? 'hang' : 'fault'
}
