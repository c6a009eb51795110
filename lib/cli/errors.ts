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
    const exitCode = exitCodeOf(status, body)
    super(replyText(status, body, exitCode, what), exitCode, { ...body, status })
    this.status = status
    this.headers = headers
  }
}

/** Returns what a refusal means, where that can be known, and the words of the server. */
function replyText(status: number, body: Record<string, unknown>, exitCode: ExitCode, what: string): string {
  const told = body.message ?? body.reason ?? body.error
  const id = typeof body.id === 'string' ? ` (${body.id})` : ''
  const meaning = meaningOf(status, exitCode, String(told)) ?? (told === undefined ? what : undefined)
  return `${meaning ? `${meaning}: ` : ''}${told ?? 'refused'}${id} [${status}]`
}

function meaningOf(status: number, exitCode: ExitCode, told: string): string | undefined {
  if (status === 401) return 'the server does not know these credentials'
  if (status === 403) return 'these credentials may not do this'
  if (status === 404 && /^Route .* not found$/.test(told))
    return 'the server has no backups at this address; is BACKUPS_URL right?'
  if (exitCode === EXIT.notFound && status === 400) return 'there is no such backup'
  if (exitCode === EXIT.inProgress) return 'something else is running; try again when it has ended'
  if (exitCode === EXIT.unavailable) return 'the server cannot serve this now'
  return undefined
}

/** The host has not registered the operator's routes, or has them elsewhere. */
export class NoOperatorError extends CliError {
  constructor(url: URL) {
    super(
      `the server has no operator's routes at ${url.href}: its host has to register them (fastify-couchdb-backups/operator); if they are elsewhere, name the place with --operator URL or BACKUPS_OPERATOR_URL`
    )
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
      if (/^[a-z]+_in_progress$/.test(String(message))) return EXIT.inProgress
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

/** Returns what a failure is told as. An interrupt counts more than what it made fail. */
export function toldError(error: unknown, interrupted: boolean): CliError {
  const isTold = error instanceof CliError && error.exitCode === EXIT.interrupted
  if (interrupted && !isTold) return new CliError('interrupted', EXIT.interrupted)
  if (error instanceof CliError) return error
  return new CliError(`a fault of this program: ${(error as Error)?.stack ?? error}`)
}

/** Returns the member `error` of `--json`. */
export const errorMember = ({ message, exitCode, reply }: CliError): object => ({
  message,
  exit_code: exitCode,
  ...(reply && { reply })
})

const FILE_REASONS: Record<string, string> = {
  ENOENT: 'there is no such file or directory',
  ENOTDIR: 'a part of the path is not a directory',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space is left on the disk',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file is too large for the file system',
  ENAMETOOLONG: 'the name is too long',
  EIO: 'the disk failed',
  EMFILE: 'too many files are open',
  ENFILE: 'too many files are open'
}

/** Returns the error that the failure of a file at `path` ends the command with. */
export function fileError(error: unknown, path: string): Error {
  if (error instanceof CliError || (error as Error).name === 'AbortError') return error as Error
  const { code = '' } = error as NodeJS.ErrnoException
  if (code === '') return error as Error
  return new CliError(`${path} cannot be used: ${FILE_REASONS[code] ?? `the system says ${code}`}`)
}
