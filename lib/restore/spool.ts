import { type FileHandle, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { LogicalDatabase } from '../../types/databases.js'
import { InsufficientStorageError } from '../errors.js'

const BLOCK = 256 * 1024
/** Length and ordinal before each document. */
const FRAME = 8

/** A document as it lies in a spool. */
export interface Spooled {
  ordinal: number
  bytes: Buffer
}

/** Documents of a backup on the host's disk, in a directory that only this process' user can read. */
export class Spool {
  readonly directory: string
  readonly #limit: number
  readonly #files = new Map<string, SpoolFile>()
  #size = 0
  #extra = 0

  private constructor(directory: string, limit: number) {
    this.directory = directory
    this.#limit = limit
  }

  /** @param limit bytes that the spool may take */
  static async create(parent: string | undefined, limit: number): Promise<Spool> {
    const directory = await orNoSpace(mkdtemp(join(parent ?? tmpdir(), 'db-backups-')))
    return new Spool(directory, limit)
  }

  async append(database: LogicalDatabase, design: boolean, { ordinal, bytes }: Spooled): Promise<void> {
    this.#claim(bytes.length + FRAME)
    const file = await this.#file(nameOf(database, design))
    await orNoSpace(file.append(ordinal, bytes))
  }

  /** Documents in the order in which they were appended. */
  async *read(database: LogicalDatabase, design: boolean): AsyncGenerator<Spooled> {
    const file = this.#files.get(nameOf(database, design))
    if (file) yield* file.read()
  }

  /** A new file of its own for a document that is too large for memory. */
  async largeFile(): Promise<LargeFile> {
    const path = join(this.directory, `large-${this.#extra++}`)
    const handle = await orNoSpace(open(path, 'wx', 0o600))
    return new LargeFile(path, handle, (bytes) => this.#claim(bytes))
  }

  /** Removes everything. */
  async remove(): Promise<void> {
    await Promise.all([...this.#files.values()].map((file) => file.close().catch(() => undefined)))
    await rm(this.directory, { recursive: true, force: true })
  }

  #claim(bytes: number): void {
    this.#size += bytes
    if (this.#size > this.#limit) {
      throw new InsufficientStorageError(
        `the backup takes more than the ${this.#limit} bytes set aside for uploads`
      )
    }
  }

  async #file(name: string): Promise<SpoolFile> {
    let file = this.#files.get(name)
    if (!file) {
      file = new SpoolFile(await orNoSpace(open(join(this.directory, name), 'wx+', 0o600)))
      this.#files.set(name, file)
    }
    return file
  }
}

/** A file that takes one document, piece by piece. */
export class LargeFile {
  readonly path: string
  readonly #handle: FileHandle
  readonly #claim: (bytes: number) => void

  constructor(path: string, handle: FileHandle, claim: (bytes: number) => void) {
    this.path = path
    this.#handle = handle
    this.#claim = claim
  }

  async write(piece: Uint8Array): Promise<void> {
    if (piece.length === 0) return
    this.#claim(piece.length)
    await orNoSpace(this.#handle.writeFile(piece))
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  async remove(): Promise<void> {
    await rm(this.path, { force: true })
  }
}

class SpoolFile {
  readonly #handle: FileHandle
  #block = Buffer.allocUnsafeSlow(BLOCK)
  #used = 0
  #length = 0

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  async append(ordinal: number, bytes: Buffer): Promise<void> {
    if (this.#used + FRAME + bytes.length > BLOCK) await this.#flush()
    if (FRAME + bytes.length > BLOCK) {
      const frame = Buffer.alloc(FRAME)
      frame.writeUInt32LE(bytes.length, 0)
      frame.writeUInt32LE(ordinal, 4)
      await this.#write(frame)
      await this.#write(bytes)
      return
    }
    this.#block.writeUInt32LE(bytes.length, this.#used)
    this.#block.writeUInt32LE(ordinal, this.#used + 4)
    bytes.copy(this.#block, this.#used + FRAME)
    this.#used += FRAME + bytes.length
  }

  async *read(): AsyncGenerator<Spooled> {
    await this.#flush()
    let rest: Buffer = Buffer.alloc(0)
    let position = 0
    while (position < this.#length) {
      const needed = rest.length >= FRAME ? FRAME + rest.readUInt32LE(0) - rest.length : 0
      const wanted = Math.min(this.#length - position, Math.max(BLOCK, needed))
      const all = Buffer.allocUnsafeSlow(rest.length + wanted)
      rest.copy(all)
      const kept = rest.length
      const { bytesRead } = await this.#handle.read(all, kept, wanted, position)
      if (bytesRead < wanted) throw new Error('the spooled upload was cut off')
      position += bytesRead
      let at = 0
      while (all.length - at >= FRAME) {
        const end = at + FRAME + all.readUInt32LE(at)
        if (end > all.length) break
        yield { ordinal: all.readUInt32LE(at + 4), bytes: all.subarray(at + FRAME, end) }
        at = end
      }
      rest = all.subarray(at)
    }
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  async #flush(): Promise<void> {
    if (this.#used === 0) return
    await this.#write(this.#block.subarray(0, this.#used))
    this.#used = 0
  }

  async #write(bytes: Buffer): Promise<void> {
    let written = 0
    while (written < bytes.length) {
      const { bytesWritten } = await this.#handle.write(
        bytes,
        written,
        bytes.length - written,
        this.#length + written
      )
      written += bytesWritten
    }
    this.#length += bytes.length
  }
}

const nameOf = (database: LogicalDatabase, design: boolean) => `${database}${design ? '.design' : ''}`

async function orNoSpace<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      throw new InsufficientStorageError('the disk for uploads is full')
    }
    throw error
  }
}
