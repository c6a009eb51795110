import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import type { Call } from './client.js'
import { CliError, fileError, usageError } from './errors.js'
import { type Ends, isGzipName, MARGIN, readGzipFile } from './gzip-file.js'

const GZIP = '\x1f\x8b'
const MARK = '\xef\xbb\xbf'

/** Makes a request's body of a backup's file, gzip or not, with `webhookUrl` first. @throws CliError */
export async function uploadOf(
  path: string,
  webhookUrl: string | undefined,
  onProgress: (done: number, total: number) => void
): Promise<Pick<Call, 'upload' | 'headers'>> {
  const { size, brace } = await inspect(path)
  if (brace === undefined && webhookUrl !== undefined)
    throw usageError(`--client-webhook-url cannot be sent with gzip: gunzip ${path}`)
  const webhook = webhookUrl === undefined ? '' : `"client_webhook_url":${JSON.stringify(webhookUrl)},`
  const head = Buffer.from(brace === undefined ? '' : `{${webhook}`)
  const start = brace === undefined ? 0 : brace + 1
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
      throw fileError(error, path)
    }
    if (done !== length) throw new CliError(`${path} has changed while it was read`)
  }
  const upload = { length, open: () => Readable.from(read(), { objectMode: false }) }
  return { upload, ...(brace === undefined && { headers: { 'content-encoding': 'gzip' } }) }
}

/** Makes a request's body of a backup's file as the text it holds, for routes that take no gzip. @throws CliError */
export async function textUploadOf(
  path: string,
  onProgress: (done: number, total: number) => void
): Promise<Pick<Call, 'upload'>> {
  const { brace } = await inspect(path)
  if (brace !== undefined) return uploadOf(path, undefined, onProgress)
  const { length } = await readGzipFile(path)
  const read = async function* () {
    let done = 0
    try {
      for await (const piece of createReadStream(path).pipe(createGunzip()) as AsyncIterable<Buffer>) {
        done += piece.length
        yield piece
        onProgress(done, length)
      }
    } catch (error) {
      throw fileError(error, path)
    }
  }
  return { upload: { length, open: () => Readable.from(read(), { objectMode: false }) } }
}

/** Returns a file's size and the place of its opening brace; `undefined` for gzip. @throws CliError */
async function inspect(path: string): Promise<{ size: number; brace?: number }> {
  const ends = await endsOf(path)
  const { length: size } = ends
  if (ends.head.startsWith(GZIP)) {
    braceOf(path, await readGzipFile(path))
    return { size }
  }
  if (isGzipName(path)) throw new CliError(`${path} is not gzip, as its name says`)
  return { size, brace: braceOf(path, ends) }
}

/** Returns where a backup's text begins after white space and a mark. @throws CliError for other text */
function braceOf(path: string, { head, tail }: Ends): number {
  const text = head.startsWith(MARK) ? MARK.length : 0
  const brace = text + head.slice(text).search(/[^ \t\r\n]/)
  if (head[brace] !== '{') throw new CliError(`${path} is not a backup: it is no JSON object`)
  if (!tail.trimEnd().endsWith('}')) throw new CliError(`${path} is not whole: its end is missing`)
  return brace
}

async function endsOf(path: string): Promise<Ends> {
  try {
    const file = await open(path)
    try {
      const found = await file.stat()
      if (!found.isFile()) throw new CliError(`${path} is not a file`)
      const { size: length } = found
      const read = async (position: number) => {
        const { buffer, bytesRead } = await file.read(Buffer.alloc(MARGIN), 0, MARGIN, position)
        return buffer.toString('latin1', 0, bytesRead)
      }
      return { length, head: await read(0), tail: await read(Math.max(0, length - MARGIN)) }
    } finally {
      await file.close()
    }
  } catch (error) {
    throw fileError(error, path)
  }
}
