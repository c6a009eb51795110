import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { Call } from './client.js'
import { CliError, EXIT } from './errors.js'

/** Bytes at either end of a file that are looked at. */
const MARGIN = 4096

/**
 * A file with a backup, as the body of a request.
 * @param webhookUrl put in front of the backup's own members, where the API has it
 * @param onProgress told of the bytes read
 * @throws CliError when the file cannot be read, or is not whole at first sight
 */
export async function uploadOf(
  path: string,
  webhookUrl: string | undefined,
  onProgress: (done: number, total: number) => void
): Promise<NonNullable<Call['upload']>> {
  const { size, start } = await inspect(path)
  const head = Buffer.from(
    webhookUrl === undefined ? '{' : `{"client_webhook_url":${JSON.stringify(webhookUrl)},`
  )
  const length = head.length + size - start - 1
  const read = async function* () {
    let done = head.length
    yield head
    for await (const piece of createReadStream(path, { start: start + 1, end: size - 1 })) {
      done += piece.length
      yield piece
      onProgress(done, length)
    }
    if (done !== length) throw new CliError(EXIT.failed, `${path} has changed while it was read`)
  }
  return { length, open: () => Readable.from(read(), { objectMode: false }) }
}

/** The file's size, and where its opening brace stands. */
async function inspect(path: string): Promise<{ size: number; start: number }> {
  let head: string
  let tail: string
  let size: number
  try {
    const file = await open(path)
    try {
      const found = await file.stat()
      if (!found.isFile()) throw new Error(`${path} is not a file`)
      size = found.size
      const ends = [Buffer.alloc(MARGIN), Buffer.alloc(MARGIN)]
      const first = await file.read(ends[0], 0, MARGIN, 0)
      const last = await file.read(ends[1], 0, MARGIN, Math.max(0, size - MARGIN))
      head = ends[0].toString('latin1', 0, first.bytesRead)
      tail = ends[1].toString('latin1', 0, last.bytesRead)
    } finally {
      await file.close()
    }
  } catch (error) {
    throw new CliError(EXIT.failed, (error as Error).message)
  }
  const start = head.search(/[^ \t\r\n]/)
  if (start < 0 || head[start] !== '{')
    throw new CliError(EXIT.failed, `${path} is not a backup: it is no JSON object`)
  if (!tail.trimEnd().endsWith('}'))
    throw new CliError(EXIT.failed, `${path} is not whole: its end is missing`)
  return { size, start }
}
