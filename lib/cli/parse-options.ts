import { parseArgs } from 'node:util'
import type { Options, Values } from './command.js'
import { usageError } from './errors.js'

/** Splits the arguments of a command into options and others. @throws CliError that names what is wrong */
export function parseOptions(
  name: string,
  args: string[],
  options: Options
): { values: Values; positionals: string[] } {
  try {
    return parseArgs({ args, options, allowPositionals: true })
  } catch (error) {
    throw usageError(`${refusalOf(name, error as NodeJS.ErrnoException, options)}: see ${name} --help`)
  }
}

/** Returns what is wrong with an option. The texts of Node.js tell of its own conventions. */
function refusalOf(name: string, { code, message }: NodeJS.ErrnoException, options: Options): string {
  const option = /'(?:-\w, )?(-{1,2}[^\s']*)/.exec(message)?.[1]
  if (option === undefined) return 'the options cannot be read'
  if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') return `${name} has no option ${option}`
  const isSwitch = options[option.replace(/^--/, '')]?.type === 'boolean'
  return isSwitch ? `${option} takes no value` : `${option} needs a value`
}
