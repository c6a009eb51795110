/** A figure of the run, and the most that it may be. */
export interface Figure {
  what: string
  value: number | string
  bar?: number
}

export const missed = ({ value, bar }: Figure): boolean => bar !== undefined && !(Number(value) <= bar)

/** Writes figures as a Markdown table. */
export function figuresTable(figures: readonly Figure[]): string {
  return table(
    ['measured', 'figure', 'bar'],
    figures.map(({ what, value, bar }) => [what, String(value), bar === undefined ? '' : String(bar)])
  )
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

/** What a part of the run has found. */
export interface PartResult {
  figures: Figure[]
  tables?: string[]
  /** Each thing that went wrong, for people. */
  problems: string[]
}
