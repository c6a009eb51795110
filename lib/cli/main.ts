#!/usr/bin/env node
import { Client } from './client.js'
import type { Command, LocalCommand, Options, Outcome, Values } from './command.js'
import { append } from './commands/append.js'
import { completionOf } from './commands/completion.js'
import { diff } from './commands/diff.js'
import { get } from './commands/get.js'
import { list } from './commands/list.js'
import { prune } from './commands/prune.js'
import { restore } from './commands/restore.js'
import { rm } from './commands/rm.js'
import { schedule } from './commands/schedule.js'
import { start } from './commands/start.js'
import { status } from './commands/status.js'
import { verify } from './commands/verify.js'
import { readEnvironment } from './environment.js'
import { EXIT, type ExitCode, errorMember, toldError, usageError } from './errors.js'
import { duration } from './format.js'
import { commandHelp, mainHelp } from './help.js'
import { parseOptions } from './parse-options.js'
import { Progress } from './progress.js'

const COMMON: Options = {
  json: { type: 'boolean' },
  progress: { type: 'boolean' },
  retries: { type: 'string', default: '5' },
  timeout: { type: 'string', default: '120' },
  operator: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' }
}

const COMMANDS: Record<string, Command | LocalCommand> = {
  start,
  status,
  list,
  get,
  append,
  restore,
  diff,
  verify,
  rm,
  prune,
  schedule,
  completion: completionOf(() => COMMANDS, COMMON)
}

/** @throws CliError */
async function run(argv: readonly string[], signal: AbortSignal): Promise<Outcome | null> {
  const [name, ...rest] = argv
  if (name === undefined) throw usageError(mainHelp(COMMANDS))
  if (name === '--help' || name === '-h' || name === 'help') return print(mainHelp(COMMANDS))
  if (name === '--version') return print(version())
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (!command) throw usageError(`there is no command "${name}": see --help`)
  const { values, positionals } = parseOptions(name, rest, { ...COMMON, ...command.options })
  if (values.help) return print(commandHelp(name, command))
  if (values.version) return print(version())
  const [least, most] = command.arguments
  if (positionals.length < least || positionals.length > most) {
    throw usageError(`usage: ${name} ${command.usage}; see ${name} --help`)
  }
  command.check?.(positionals, values)
  if ('print' in command) return print(command.print(positionals))
  const progress = new Progress(process.stderr, values.progress === true)
  const retries = count('retries', values.retries, 0)
  const client = new Client({
    ...readEnvironment(process.env, values.operator as string | undefined),
    retries,
    timeout: count('timeout', values.timeout, 1) * 1000,
    signal,
    onRetry: ({ message }, wait, failures) =>
      progress.warn(`${message}; retrying in ${duration(wait)} (${failures} of ${retries})`)
  })
  const { stdin, stdout, stderr } = process
  try {
    return await command.run({ client, progress, stdin, stdout, stderr }, positionals, values)
  } finally {
    progress.clear()
  }
}

function print(text: string): null {
  process.stdout.write(`${text}\n`)
  return null
}

const version = () => (require('fastify-couchdb-backups/package.json') as { version: string }).version

function count(name: string, value: Values[string], least: number): number {
  const number = Number(value)
  if (/^\d+$/.test(String(value)) && number >= least && number <= 86_400) return number
  throw usageError(`--${name} must be a number, ${least} or more`)
}

/** Prints the outcome. @returns the exit code */
function conclude(json: boolean, outcome: Outcome): ExitCode {
  if (outcome.warning) process.stderr.write(`${outcome.warning}\n`)
  if (!json && outcome.note) process.stderr.write(`${outcome.note}\n`)
  if (json && outcome.result) print(JSON.stringify(outcome.result))
  else if (outcome.text) print(outcome.text)
  return outcome.exitCode ?? EXIT.ok
}

function fail(json: boolean, error: unknown, interrupted: boolean): ExitCode {
  const told = toldError(error, interrupted)
  process.stderr.write(`${told.message}\n`)
  if (json) print(JSON.stringify({ error: errorMember(told) }))
  return told.exitCode
}

async function main(argv: readonly string[]): Promise<ExitCode> {
  const json = argv.includes('--json')
  const interrupt = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    // The second signal ends the process at once.
    process.once(signal, () => interrupt.abort())
  }
  // The reader of stdout has seen enough.
  process.stdout.on('error', () => process.exit(EXIT.failed))
  try {
    const outcome = await run(argv, interrupt.signal)
    return outcome ? conclude(json, outcome) : EXIT.ok
  } catch (error) {
    return fail(json, error, interrupt.signal.aborted)
  }
}

void main(process.argv.slice(2)).then((code) => {
  process.exitCode = code
  // stdin, and idle connections, would keep the process alive.
  process.stdin.destroy()
})
