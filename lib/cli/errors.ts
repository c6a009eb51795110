import type { IncomingHttpHeaders } from 'node:http'

/** Exit codes of the process, which are part of the interface. */
export const EXIT = {
  ok: 0,
  /** The operation ended with an error, or the server refused it for another reason. */
  failed: 1,
  usage: 2,
  auth: 3,
  notFound: 4,
  inProgress: 5,
  unavailable: 6,
  /** 128 + SIGINT, as in shells. */
  interrupted: 130
} as const

export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** Ends the command with a message, without a stack. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly exitCode: ExitCode
  readonly reply: object | undefined

  constructor(message: string, exitCode: ExitCode = EXIT.failed, reply?: object) {
    super(message)
    this.exitCode = exitCode
    this.reply = reply
  }
}

export const usageError = (message: string): CliError => new CliError(message, EXIT.usage)

export class ReplyError extends CliError {
  readonly status: number
  readonly headers: IncomingHttpHeaders

  constructor(status: number, headers: IncomingHttpHeaders, body: Record<string, unknown>, what: string) {
    const message = body.message ?? body.reason ?? body.error
    const running = typeof body.id === 'string' ? ` (${body.id})` : ''
    const told = `${what}: ${message ?? 'refused'}${running} [${status}]`
    super(told, exitCodeOf(status, body), { ...body, status })
    this.status = status
    this.headers = headers
  }
}

export class ConnectionError extends CliError {
  /** Whether surely nothing of the request has reached the server. */
  readonly unsent: boolean

  constructor(message: string, unsent = false) {
    super(message, EXIT.unavailable)
    this.unsent = unsent
  }
}

function exitCodeOf(status: number, { message, code }: Record<string, unknown>): ExitCode {
  switch (status) {
    case 400:
      // The API uses one status for these and for other errors.
      if (/^(already|backup|restore)_in_progress$/.test(String(message))) return EXIT.inProgress
      return message === 'cannot restore, could not load backup doc.' ? EXIT.notFound : EXIT.failed
    case 401:
    case 403:
      return EXIT.auth
    case 404:
      return EXIT.notFound
    case 502:
      return code === 'DB_BACKUPS_DATABASE_ERROR' ? EXIT.failed : EXIT.unavailable
    case 429:
    case 503:
    case 504:
      return EXIT.unavailable
    default:
      return EXIT.failed
  }
}

/** Returns the error that a file's failure ends the command with. */
export const fileError = (error: unknown): Error =>
  error instanceof CliError ? error : new CliError((error as Error).message)
