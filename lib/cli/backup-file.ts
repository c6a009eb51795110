import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { Readable } from 'node:stream'
import type { Call } from './client.js'
import { CliError, EXIT, fileError } from './errors.js'

/** Bytes at either end of a file that are looked at. */
const MARGIN = 4096
const GZIP = '\x1f\x8b'
/** The byte order mark of UTF-8. */
const MARK = '\xef\xbb\xbf'

interface Inspected {
  size: number
  /** It is gzip, which the server inflates. */
  gzip: boolean
  /** Where the opening brace stands, unless it is gzip. */
  start: number
}

/**
 * Makes a request's body of a file with a backup, or with the gzip of one.
 * @param webhookUrl put in front of the backup's own members, where the API has it
 * @param onProgress told of the bytes read
 * @throws CliError when the file cannot be read, or is not whole at first sight
 */
export async function uploadOf(
  path: string,
  webhookUrl: string | undefined,
  onProgress: (done: number, total: number) => void
): Promise<Pick<Call, 'upload' | 'headers'>> {
  const { size, start, gzip } = await inspect(path)
  if (gzip && webhookUrl !== undefined)
    throw new CliError(EXIT.usage, `--client-webhook-url cannot be sent with gzip: gunzip ${path}`)
  const upload = gzip
    ? uploadFrom(path, { head: Buffer.alloc(0), start: 0, size }, onProgress)
    : uploadFrom(path, { head: openingOf(webhookUrl), start: start + 1, size }, onProgress)
  return { upload, ...(gzip && { headers: { 'content-encoding': 'gzip' } }) }
}

/** The opening brace of a backup, with the webhook after it. */
const openingOf = (webhookUrl: string | undefined): Buffer =>
  Buffer.from(webhookUrl === undefined ? '{' : `{"client_webhook_url":${JSON.stringify(webhookUrl)},`)

/** @param part what is sent: `head`, and the file from `start` to its end */
function uploadFrom(
  path: string,
  { head, start, size }: { head: Buffer; start: number; size: number },
  onProgress: (done: number, total: number) => void
): NonNullable<Call['upload']> {
  const length = head.length + size - start
  const read = async function* () {
    let done = head.length
    yield head
    try {
      for await (const piece of createReadStream(path, { start, end: size - 1 })) {
        done += piece.length
        yield piece
        onProgress(done, length)
      }
    } catch (error) {
      throw fileError(error)
    }
    if (done !== length) throw new CliError(EXIT.failed, `${path} has changed while it was read`)
  }
  return { length, open: () => Readable.from(read(), { objectMode: false }) }
}

async function inspect(path: string): Promise<Inspected> {
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
    throw fileError(error)
  }
  if (head.startsWith(GZIP)) return { size, start: 0, gzip: true }
  const text = head.startsWith(MARK) ? MARK.length : 0
  const start = text + head.slice(text).search(/[^ \t\r\n]/)
  if (head[start] !== '{') throw new CliError(EXIT.failed, `${path} is not a backup: it is no JSON object`)
  if (!tail.trimEnd().endsWith('}'))
    throw new CliError(EXIT.failed, `${path} is not whole: its end is missing`)
  return { size, start, gzip: false }
}
