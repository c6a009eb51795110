import { createInterface } from 'node:readline/promises'
import type { Context } from './command.js'
import { CliError, usageError } from './errors.js'

/**
 * Asks on the terminal for the server's host to be typed.
 * @param nothing tells what was not done after another answer
 * @throws CliError without a terminal or after another answer
 */
export async function confirm(
  { stdin, stderr, client }: Context,
  what: string,
  nothing = 'nothing was restored'
): Promise<void> {
  if (!stdin.isTTY) throw usageError('stdin is not a terminal; pass --yes to confirm')
  const terminal = createInterface({ input: stdin, output: stderr })
  try {
    // The end of the input is an answer too.
    const ended = new Promise<string>((resolve) => terminal.once('close', () => resolve('')))
    const asked = terminal.question(`${what}\nType ${client.host} to go on: `, { signal: client.signal })
    if ((await Promise.race([asked, ended])).trim() === client.host) return
  } finally {
    terminal.close()
  }
  throw new CliError(`not confirmed: ${nothing}`)
}
