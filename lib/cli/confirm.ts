import { createInterface } from 'node:readline/promises'
import type { Context } from './command.js'
import { CliError, usageError } from './errors.js'

/**
 * Asks on the terminal for an answer that shows that the question was read.
 * @throws CliError when there is no terminal or another answer came
 */
export async function confirm(
  { stdin, stderr, client }: Context,
  what: string,
  answer: string
): Promise<void> {
  if (!stdin.isTTY) throw usageError('nobody can be asked, stdin is no terminal: --yes confirms')
  const terminal = createInterface({ input: stdin, output: stderr })
  try {
    // The end of the input is an answer as well.
    const ended = new Promise<string>((resolve) => terminal.once('close', () => resolve('')))
    const asked = terminal.question(`${what}\nType ${answer} to go on: `, { signal: client.signal })
    if ((await Promise.race([asked, ended])).trim() === answer) return
  } finally {
    terminal.close()
  }
  throw new CliError('not confirmed: nothing was restored')
}
