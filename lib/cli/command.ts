import type { Readable } from 'node:stream'
import type { ParseArgsConfig } from 'node:util'
import type { Client } from './client.js'
import type { EXIT, ExitCode } from './errors.js'
import type { Progress } from './progress.js'

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
  /** For people; `null` when stdout was for something else. */
  text: string | null
  /** For people, on stderr. */
  note?: string
  /** For stderr, terminal or not. */
  warning?: string | null
  /** Default {@link EXIT.ok}. */
  exitCode?: ExitCode
}

export type Options = NonNullable<ParseArgsConfig['options']>
export type Values = Record<string, string | boolean | (string | boolean)[] | undefined>

/** What is told of a command, and what it takes. */
export interface Described {
  summary: string
  usage: string
  help: string
  options: Options
  /** Fewest and most arguments. */
  arguments: readonly [number, number]
  /** Checks arguments without a server. @throws CliError */
  check?(args: readonly string[], values: Values): void
  /** What a shell completes: arguments, whether some are files, and values of options. */
  completes?: {
    arguments?: readonly string[]
    files?: boolean
    values?: Record<string, readonly string[] | 'file'>
  }
}

/** Is done without a server. */
export interface LocalCommand extends Described {
  print(args: readonly string[]): string
}

export interface Command extends Described {
  run(context: Context, args: readonly string[], values: Values): Promise<Outcome>
}
