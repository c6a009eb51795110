import { type FileHandle, mkdtemp, open, rm, unlink } from 'node:fs/promises'
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

/**
 * Documents of a backup on the host's disk, in a directory that only this process' user can read. Its files have no
 * names: what a process that is killed has spooled is gone with it.
 */
export class Spool {
  readonly #directory: string
  readonly #limit: number
  readonly #files = new Map<string, SpoolFile>()
  readonly #large = new Set<LargeFile>()
  #opened = 0
  #size = 0

  private constructor(directory: string, limit: number) {
    this.#directory = directory
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
    await file.append(ordinal, bytes)
  }

  /** Everything appended is on the disk, or there is no room for it. */
  async flush(): Promise<void> {
    for (const file of this.#files.values()) await file.flush()
  }

  /** Documents in the order in which they were appended, in groups. A group is valid until the next is asked for. */
  async *read(database: LogicalDatabase, design: boolean): AsyncGenerator<Spooled[]> {
    const file = this.#files.get(nameOf(database, design))
    if (file) yield* file.read()
  }

  /** A new file for documents that are too large for memory. */
  async largeFile(): Promise<LargeFile> {
    const file = new LargeFile(await this.#open('large'), {
      claim: (bytes) => this.#claim(bytes),
      closed: () => this.#large.delete(file)
    })
    this.#large.add(file)
    return file
  }

  /** Removes everything. */
  async remove(): Promise<void> {
    const files = [...this.#files.values(), ...this.#large]
    await Promise.all(files.map((file) => file.close().catch(() => undefined)))
    await rm(this.#directory, { recursive: true, force: true })
  }

  /** @param bytes negative when room is given back */
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
      file = new SpoolFile(await this.#open(name))
      this.#files.set(name, file)
    }
    return file
  }

  async #open(name: string): Promise<FileHandle> {
    const path = join(this.#directory, `${name}-${this.#opened++}`)
    const handle = await orNoSpace(open(path, 'wx+', 0o600))
    // Where an open file cannot be unlinked, it goes with its directory.
    await unlink(path).catch(() => undefined)
    return handle
  }
}

/** A file that takes documents piece by piece, to be read by position. */
export class LargeFile {
  readonly handle: FileHandle
  readonly #spool: { claim(bytes: number): void; closed(): void }
  #size = 0

  /** @param spool is told how much room the file takes, negative when it gives it back */
  constructor(handle: FileHandle, spool: { claim(bytes: number): void; closed(): void }) {
    this.handle = handle
    this.#spool = spool
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size
  }

  async write(piece: Uint8Array): Promise<void> {
    this.#spool.claim(piece.length)
    const at = this.#size
    this.#size += piece.length
    await writeAt(this.handle, piece, at)
  }

  /** Removes the file, and gives its room back. */
  async close(): Promise<void> {
    this.#spool.closed()
    this.#spool.claim(-this.#size)
    this.#size = 0
    await this.handle.close()
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
    if (this.#used + FRAME + bytes.length > BLOCK) await this.flush()
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

  async *read(): AsyncGenerator<Spooled[]> {
    await this.flush()
    let buffer = Buffer.allocUnsafeSlow(BLOCK)
    /** Bytes at the buffer's beginning that were read, and belong to no group yet. */
    let kept = 0
    for (let position = 0; position < this.#length; ) {
      const needed = Math.max(BLOCK, kept >= FRAME ? FRAME + buffer.readUInt32LE(0) : 0)
      if (needed > buffer.length) buffer = Buffer.concat([buffer.subarray(0, kept)], needed)
      const wanted = Math.min(this.#length - position, needed - kept)
      const { bytesRead } = await this.#handle.read(buffer, kept, wanted, position)
      if (bytesRead < wanted) throw new Error('the spooled upload was cut off')
      position += bytesRead
      const filled = kept + bytesRead
      const group: Spooled[] = []
      let at = 0
      while (filled - at >= FRAME) {
        const end = at + FRAME + buffer.readUInt32LE(at)
        if (end > filled) break
        group.push({ ordinal: buffer.readUInt32LE(at + 4), bytes: buffer.subarray(at + FRAME, end) })
        at = end
      }
      yield group
      buffer.copyWithin(0, at, filled)
      kept = filled - at
    }
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }

  async flush(): Promise<void> {
    if (this.#used === 0) return
    await this.#write(this.#block.subarray(0, this.#used))
    this.#used = 0
  }

  async #write(bytes: Buffer): Promise<void> {
    await writeAt(this.#handle, bytes, this.#length)
    this.#length += bytes.length
  }
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let written = 0
  while (written < bytes.length) {
    const left = bytes.length - written
    const { bytesWritten } = await orNoSpace(handle.write(bytes, written, left, position + written))
    written += bytesWritten
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
