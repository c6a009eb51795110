import { type Described, NAME } from './command.js'
import { ENVIRONMENT_HELP } from './environment.js'

const COMMON_HELP = `
Common options:
  --json           print one JSON object to stdout
  --progress       tell the progress also when stderr is no terminal
  --retries N      attempts after a call that failed for the moment (default 5)
  --timeout N      seconds of silence after which to give up (default 120)
  --operator URL   address of the operator's routes, which list, diff, verify, rm,
                   prune, schedule and restore --dry-run need
  --help, --version

${ENVIRONMENT_HELP}

Exit codes:
  0  done                                 4  no such backup or transaction
  1  failed, or refused                   5  a backup or a restore runs already
  2  wrong arguments or environment       6  server or database not available
  3  not authenticated, or not allowed    130  interrupted`

export function mainHelp(commands: Record<string, Described>): string {
  const lines = Object.entries(commands).map(([name, { usage, summary }]) => {
    return `  ${`${name} ${usage}`.padEnd(34)} ${summary}`
  })
  return `Usage: ${NAME} <command> [options]

Commands:
${lines.join('\n')}
${COMMON_HELP}`
}

export function commandHelp(name: string, { usage, summary, help }: Described): string {
  const own = help ? `\n${help}\n` : ''
  return `Usage: ${NAME} ${name} ${usage}
${summary[0].toUpperCase()}${summary.slice(1)}.
${own}
${NAME} --help tells common options, environment and exit codes.`
}
