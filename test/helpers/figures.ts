/** A measured figure. */
interface Figure {
  what: string
  value: number | string
  /** The most that the figure may be. */
  bar?: number
}

/** Tells whether a figure exceeds its bar. */
export const missed = ({ value, bar }: Figure): boolean => bar !== undefined && !(Number(value) <= bar)

/** Formats figures as a Markdown table. */
export function figuresTable(figures: readonly Figure[]): string {
  return table(
    ['measured', 'figure', 'bar'],
    figures.map(({ what, value, bar }) => [what, String(value), bar === undefined ? '' : String(bar)])
  )
}

/** Formats rows as a Markdown table. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

/** Returns the median, or 0 of no values. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

/** Formats milliseconds as seconds. */
export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`

/** The findings of one part of the run. */
export interface PartResult {
  figures: Figure[]
  tables?: string[]
  /** Descriptions of everything that went wrong. */
  problems: string[]
}
