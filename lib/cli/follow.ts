import type { Client } from './client.js'
import { NAME } from './command.js'
import { CliError, EXIT } from './errors.js'

/**
 * Waits for the end of a backup or a restore. An interrupt, or a failure of the server to tell, names the operation and
 * the command that follows it further.
 * @throws CliError
 */
export async function follow<T>(
  client: Client,
  { what, id }: { what: 'backup' | 'restore'; id: string },
  wait: () => Promise<T>
): Promise<T> {
  try {
    return await wait()
  } catch (error) {
    const further = `Follow it: ${NAME} status ${id} --wait`
    if (client.signal.aborted) {
      const told = `interrupted: the ${what} ${id} goes on at the server. ${further}`
      throw new CliError(told, EXIT.interrupted, { id })
    }
    if (!(error instanceof CliError) || error.exitCode !== EXIT.unavailable) throw error
    const told = `${error.message}; the ${what} ${id} may go on at the server. ${further}`
    throw new CliError(told, error.exitCode, { ...error.reply, id })
  }
}
