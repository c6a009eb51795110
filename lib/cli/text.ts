import { once } from 'node:events'

/** Writes to stdout, and waits while its reader is slower. */
export async function writeOut(stdout: NodeJS.WritableStream, data: string | Uint8Array): Promise<void> {
  if (!stdout.write(data)) await once(stdout, 'drain')
}

/** Spells out the characters that would steer a terminal. */
export const printable = (text: string): string =>
  text.replace(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it is about
    /[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  )

/** Returns a text in quotes, as JSON has it. */
export const quoted = (text: string): string => printable(JSON.stringify(text))

/** Lays out cells in columns. `right`: numbers of the columns that are aligned to the right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, i) => Math.max(cell.length, widest[i] ?? 0)),
    []
  )
  const lines = rows.map((row) =>
    row.map((cell, i) => (right.includes(i) ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))).join('  ')
  )
  return lines.map((line) => line.trimEnd()).join('\n')
}
