import type { Readable } from 'node:stream'
import type { ParseArgsConfig } from 'node:util'
import type { Client } from './client.js'
import type { EXIT, ExitCode } from './errors.js'
import type { Progress } from './progress.js'

/** The name of the command. */
export const NAME = 'fastify-couchdb-backups'

export interface Context {
  client: Client
  progress: Progress
  stdin: Readable & { isTTY?: boolean }
  stdout: NodeJS.WriteStream
  stderr: NodeJS.WriteStream
}

export interface Outcome {
  /** `null` when it was written already. */
  result: object | null
  /** Text for people; `null` when stdout was for something else. */
  text: string | null
  /** A note for people, on stderr. */
  note?: string
  /** A warning on stderr, terminal or not. */
  warning?: string | null
  /** Default {@link EXIT.ok}. */
  exitCode?: ExitCode
}

export type Options = NonNullable<ParseArgsConfig['options']>
export type Values = Record<string, string | boolean | (string | boolean)[] | undefined>

/** The description of a command, and its options and arguments. */
export interface Described {
  summary: string
  usage: string
  help: string
  options: Options
  /** Fewest and most arguments. */
  arguments: readonly [number, number]
  /** Checks arguments without a server. @throws CliError */
  check?(args: readonly string[], values: Values): void
  /** Completions for a shell: arguments, whether some are files, and values of options. */
  completes?: {
    arguments?: readonly string[]
    files?: boolean
    values?: Record<string, readonly string[] | 'file'>
  }
}

/** A command that needs no server. */
export interface LocalCommand extends Described {
  print(args: readonly string[]): string
}

export interface Command extends Described {
  run(context: Context, args: readonly string[], values: Values): Promise<Outcome>
}
