import { createReadStream } from 'node:fs'
import { promisify } from 'node:util'
import { createGunzip, gzip } from 'node:zlib'
import { InflateError, Inflater } from '../bytes/inflater.js'
import { CliError, fileError } from './errors.js'

/** Bytes of content in a member of a gzip file. */
const MEMBER = 1024 * 1024

export const isGzipName = (path: string): boolean => /\.gz$/i.test(path)

const NOTHING = new Uint8Array(0)

const compress = promisify<Uint8Array, Buffer>(gzip)

/** Makes members of a gzip file: each is whole by itself, so a file can be cut between any two. */
export class MemberWriter {
  #pieces: Uint8Array[] = []
  #held = 0

  /** Adds content. @returns what the file is to be continued with, often nothing */
  async write(piece: Uint8Array): Promise<Uint8Array> {
    this.#pieces.push(piece)
    this.#held += piece.length
    return this.#held < MEMBER ? NOTHING : this.flush()
  }

  /** Returns a member of the content that is held, so that the file holds all of it. */
  async flush(): Promise<Uint8Array> {
    const content = Buffer.concat(this.#pieces)
    this.clear()
    return content.length === 0 ? NOTHING : compress(content)
  }

  clear(): void {
    this.#pieces = []
    this.#held = 0
  }
}

/** Length of a backup's text, and what stands at its ends. */
export interface Ends {
  length: number
  head: string
  tail: string
}

/** Bytes looked at on either end. */
export const MARGIN = 4096

/** Inflates a whole file, and refuses what the server would. @throws CliError */
export async function readGzipFile(path: string): Promise<Ends> {
  const ends = { length: 0, head: '', tail: '' }
  const inflater = new Inflater(createGunzip())
  try {
    for await (const piece of createReadStream(path))
      for await (const output of inflater.write(piece)) look(ends, output)
    look(ends, await inflater.end())
  } catch (error) {
    if (error instanceof InflateError) throw new CliError(`${path} is not whole gzip: it ${error.message}`)
    throw fileError(error, path)
  } finally {
    inflater.destroy()
  }
  return ends
}

function look(ends: Ends, pieces: Buffer[]): void {
  for (const piece of pieces) {
    ends.length += piece.length
    if (ends.head.length < MARGIN) ends.head += piece.toString('latin1', 0, MARGIN - ends.head.length)
    const last = piece.subarray(Math.max(0, piece.length - MARGIN)).toString('latin1')
    ends.tail = (ends.tail + last).slice(-MARGIN)
  }
}
