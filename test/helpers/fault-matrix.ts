import { appendFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { setupDatabases } from './database.js'
import { type Lane, makeLane, type Operation, type Outcome, type Point, seedSources } from './fault-cells.js'
import { type ActiveRule, FAULTS, type Fault } from './fault-proxy.js'
import { type CellResult, type MatrixResult, tableOf } from './fault-table.js'
import { spooledIn } from './spooled.js'

/** Faults that are played at every point; where a point is `core`, or the whole matrix is asked for, all are. */
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
/** A storm that passes strikes so often. */
const STORM = 8
/** Nothing is asked more often in vain: an operation ends, or waits. */
const MOST_HITS = 400
const MOST_HITS_A_SECOND = 120
/** Every fault at every point, not one of each kind. */
const WHOLE = process.env.FAULT_MATRIX === 'whole'
/** A file to which each matrix's results are added, as a line of JSON. */
const RESULTS = process.env.FAULT_RESULTS
/** Hosts side by side: a cell mostly waits for time-outs. */
const LANES = Number(process.env.FAULT_LANES ?? 5)

interface Cell {
  point: Point
  fault: Fault
  lasting: boolean
}

export interface MatrixOptions {
  /** Points to play faults at; all of the operation's unless given. */
  points?: readonly string[]
  /** Faults to play; all unless given. */
  faults?: readonly Fault[]
}

/** Runs an operation through every fault at each of its points, and prints the results as a table. */
export async function runMatrix(t: Test, operation: Operation, options: MatrixOptions = {}): Promise<void> {
  const databases = await setupDatabases(t)
  const strays = catchStrays(t)
  const points = operation
    .points({ ...databases.names, backups: '' })
    .filter(({ name }) => options.points?.includes(name) ?? true)
  const queue = cellsOf(points, options.faults ?? FAULTS)
  const results: CellResult[] = []
  const newLane = async () => {
    const lane = await makeLane(t, databases)
    await seedSources({ couch: lane.direct }, lane.names)
    return lane
  }
  const work = async () => {
    let lane = await newLane()
    for (let cell = queue.shift(); cell; cell = queue.shift()) {
      const { point, fault, lasting } = cell
      const what = `${fault} ${lasting ? 'lasting' : 'once'} at ${point.name}`
      const startedAt = performance.now()
      const outcome = await runCell(lane, operation, cell).catch((error: Error) => error)
      results.push({ point: point.name, fault, lasting, outcome: nameOf(outcome) })
      await lane.proxy.clear()
      if (outcome instanceof Error) {
        t.fail(`${what}: ${outcome.message}`, { stack: outcome.stack })
        // what is left of it must not spoil the next
        lane = await newLane()
      } else t.pass(`${what}: ${outcome} (${Math.round(performance.now() - startedAt)} ms)`)
    }
  }
  await Promise.all(Array.from({ length: LANES }, work))
  t.strictSame(strays, [], 'nothing was thrown past us')
  const result: MatrixResult = {
    operation: operation.name,
    points: points.map((point) => ({
      name: point.name,
      except: FAULTS.filter((fault) => !canPlay(point, fault))
    })),
    cells: results,
    strays: strays.length
  }
  t.comment(tableOf(result))
  if (RESULTS) appendFileSync(RESULTS, `${JSON.stringify(result)}\n`)
}

/** What is thrown past everybody from now on. */
function catchStrays(t: Test): unknown[] {
  const strays: unknown[] = []
  const stray = (error: unknown) => strays.push(error)
  process.on('unhandledRejection', stray)
  process.on('uncaughtException', stray)
  t.teardown(() => {
    process.off('unhandledRejection', stray)
    process.off('uncaughtException', stray)
  })
  return strays
}

/** Those that wait for time-outs first, so that the others fill the time. */
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

async function runCell(lane: Lane, operation: Operation, cell: Cell, attempt = 1): Promise<Outcome> {
  const { proxy, events, names } = lane
  const { point, fault, lasting } = cell
  await operation.prepare?.(lane)
  events.length = 0
  proxy.seen.length = 0
  const [own] = operation.points(names).filter(({ name }) => name === point.name)
  const times = lasting ? Number.POSITIVE_INFINITY : /_storm$/.test(fault) ? STORM : 1
  const rule: ActiveRule = proxy.add({ ...own, times, fault, refusedFor: 100 })
  const judge = await whileServing(lane, operation.run(lane)).finally(() => expectPatience(rule))
  await proxy.clear()
  const outcome = await judge()
  const left = await spooledIn(lane.spoolDirectory)
  if (left.length > 0) throw new Error(`left on disk: ${left}`)
  // the operation may have given up before it came to that point, see expectWorking
  if (rule.hits === 0 && attempt < 3) return runCell(lane, operation, cell, attempt + 1)
  if (rule.hits === 0) throw new Error('the fault did not strike')
  return outcome
}

/** @throws when what failed was asked for again and again without an end, or without a wait */
function expectPatience({ hits, hitAt }: ActiveRule): void {
  const peak = Math.max(0, ...hitAt.map((at, i) => hitAt.findLastIndex((other) => other < at + 1000) - i + 1))
  if (hits > MOST_HITS || peak > MOST_HITS_A_SECOND) {
    throw new Error(`no end: ${hits} requests in vain, up to ${peak} in a second`)
  }
}

/** @throws when the host, meanwhile, does not serve its other routes */
async function whileServing<T>(lane: Lane, work: Promise<T>): Promise<T> {
  let done = false
  const over = work.finally(() => {
    done = true
  })
  const asking = (async () => {
    do {
      const { json } = await lane.call('GET', '/alive')
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
