import type { Call, Client } from './client.js'
import { CliError, ConnectionError, EXIT, type ExitCode } from './errors.js'

/** Bytes of a line. */
const MAX_LINE = 32 * 1024 * 1024
const FEED = 10

type Line = Record<string, unknown>

/**
 * Reads a reply that is a JSON object a line, and whose last line has a member `last`.
 * @param onLine is given every line before, except those that only say that the work goes on
 * @returns the last line
 * @throws CliError when the reply ends without it, or with an `error`
 */
export async function readLines(
  client: Client,
  call: Call,
  last: string,
  onLine: (line: Line) => void | Promise<void>
): Promise<Line> {
  const { body } = await client.retry(() => client.open({ ...call, operator: true }))
  for await (const line of linesOf(body)) {
    if (last in line) return line
    if (isFailure(line)) throw failureOf(line.error)
    if (!('running' in line)) await onLine(line)
  }
  throw new ConnectionError('the connection failed: the reply was cut off')
}

async function* linesOf(body: AsyncIterable<Buffer>): AsyncGenerator<Line> {
  let held: Buffer[] = []
  let length = 0
  for await (const piece of body) {
    let start = 0
    for (let end = piece.indexOf(FEED); end !== -1; end = piece.indexOf(FEED, start)) {
      yield parse(Buffer.concat([...held, piece.subarray(start, end)]))
      held = []
      length = 0
      start = end + 1
    }
    if (start === piece.length) continue
    held.push(piece.subarray(start))
    length += piece.length - start
    if (length > MAX_LINE) throw new CliError('the reply has a line that is too large')
  }
  if (length > 0) yield parse(Buffer.concat(held))
}

function parse(bytes: Buffer): Line {
  try {
    const value: unknown = JSON.parse(bytes.toString())
    if (typeof value === 'object' && value !== null) return value as Line
  } catch {
    // The throw below tells.
  }
  throw new CliError("the reply is not of the operator's routes; is --operator right?")
}

interface Failure {
  code?: string
  message?: string
  position?: string
}

const isFailure = (line: Line): line is { error: Failure } =>
  typeof line.error === 'object' && line.error !== null

/** A failure that ends a stream of the operator's routes. */
export class OperatorError extends CliError {
  readonly position: string | undefined

  constructor(failure: Failure, exitCode: ExitCode) {
    super(failure.message ?? 'the server failed', exitCode, failure)
    this.position = failure.position
  }
}

const EXIT_CODES: Record<string, ExitCode> = {
  DB_BACKUPS_NOT_FOUND: EXIT.notFound,
  DB_BACKUPS_IN_PROGRESS: EXIT.inProgress,
  // Goes on where it was interrupted.
  DB_BACKUPS_VERIFY_INTERRUPTED: EXIT.unavailable
}

const failureOf = (failure: Failure): CliError =>
  new OperatorError(failure, EXIT_CODES[failure.code ?? ''] ?? EXIT.failed)
