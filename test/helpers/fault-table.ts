import { FAULTS, type Fault } from './fault-proxy.js'

export interface CellResult {
  point: string
  fault: Fault
  /** The fault struck until it was cleared, rather than once. */
  lasting: boolean
  /** `fault`: the operation neither recovered nor failed as it should. */
  outcome: 'recovered' | 'failed' | 'false success' | 'hang' | 'fault'
}

export interface MatrixResult {
  operation: string
  points: { name: string; except: readonly Fault[] }[]
  cells: CellResult[]
  /** Number of unhandled rejections and uncaught exceptions. */
  unhandled: number
}

const LETTERS = { recovered: 'R', failed: 'F', 'false success': 'FALSE', hang: 'HANG', fault: 'FAULT' }

/**
 * Formats a matrix as a Markdown table with a row for each fault and a column for each point. A cell holds the outcomes
 * of the fault that strikes once, and of the lasting one.
 */
export function tableOf({ operation, points, cells }: MatrixResult): string {
  const outcomeOf = (point: string, fault: Fault, lasting: boolean) => {
    const found = cells.find(
      (cell) => cell.point === point && cell.fault === fault && cell.lasting === lasting
    )
    return found ? LETTERS[found.outcome] : ''
  }
  const cellOf = ({ name, except }: MatrixResult['points'][number], fault: Fault) =>
    except.includes(fault) ? '-' : `${outcomeOf(name, fault, false)} ${outcomeOf(name, fault, true)}`.trim()
  const row = (first: string, rest: string[]) => `| ${[first, ...rest].join(' | ')} |`
  return [
    row(
      operation,
      points.map(({ name }) => name)
    ),
    `|${' --- |'.repeat(points.length + 1)}`,
    ...FAULTS.map((fault) =>
      row(
        fault,
        points.map((point) => cellOf(point, fault))
      )
    )
  ].join('\n')
}

/** Formats the counts of outcomes as a Markdown table with a row for each operation. */
export function summaryOf(results: readonly MatrixResult[]): string {
  const count = (cells: readonly CellResult[], outcome: CellResult['outcome']) =>
    cells.filter((cell) => cell.outcome === outcome).length
  const row = (name: string, some: readonly MatrixResult[]) => {
    const cells = some.flatMap((result) => result.cells)
    const outcomes = (Object.keys(LETTERS) as CellResult['outcome'][]).map((outcome) => count(cells, outcome))
    const unhandled = some.reduce((sum, result) => sum + result.unhandled, 0)
    return `| ${[name, cells.length, ...outcomes, unhandled].join(' | ')} |`
  }
  return [
    '| operation | cells | recovered | failed clearly | false successes | hangs | other faults | unhandled rejections |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
    ...results.map((result) => row(result.operation, [result])),
    row('all', results)
  ].join('\n')
}

/** Merges the results of operations that were run in parts. */
export function merge(results: readonly MatrixResult[]): MatrixResult[] {
  const merged = new Map<string, MatrixResult>()
  for (const { operation, points, cells, unhandled } of results) {
    const known = merged.get(operation) ?? { operation, points: [], cells: [], unhandled: 0 }
    merged.set(operation, {
      operation,
      points: [...known.points, ...points],
      cells: [...known.cells, ...cells],
      unhandled: known.unhandled + unhandled
    })
  }
  return [...merged.values()]
}
