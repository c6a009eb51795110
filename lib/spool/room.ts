import { randomBytes } from 'node:crypto'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { InsufficientStorageError } from '../errors.js'
import { FileCipher } from './file-cipher.js'

/** Bytes reserved for uploads of this process, by directory, which registrations may share. */
const reserved = new Map<string, number>()

/** Room on the host's disk for uploads, shared by all users of a directory in this process. */
export class Room {
  readonly #directory: string
  readonly #limit: number

  /** @param directory default: the system's @param limit bytes of all uploads in it together */
  constructor(directory: string | undefined, limit: number) {
    this.#directory = resolve(directory ?? tmpdir())
    this.#limit = limit
  }

  get reserved(): number {
    return reserved.get(this.#directory) ?? 0
  }

  /** Reserves room for so many bytes, or none. @throws InsufficientStorageError */
  reserve(bytes: number): void {
    const wanted = this.reserved + bytes
    if (wanted > this.#limit) {
      throw new InsufficientStorageError(
        `what is spooled would take more than the ${this.#limit} bytes of limits.spoolBytes, which all that run at a time share`
      )
    }
    reserved.set(this.#directory, wanted)
  }

  release(bytes: number): void {
    const left = this.reserved - bytes
    if (left === 0) reserved.delete(this.#directory)
    else reserved.set(this.#directory, left)
  }

  /** Opens an unnamed private file, which ends with its process. @throws InsufficientStorageError */
  async file(): Promise<RoomFile> {
    const path = join(this.#directory, `db-backups-${randomBytes(12).toString('hex')}`)
    const handle = await orNoSpace(open(path, 'wx+', 0o600))
    // Some systems do not unlink open files.
    const left = await unlink(path).then(
      () => undefined,
      () => path
    )
    return new RoomFile(this, handle, left)
  }
}

/** Bytes that are written at a time. */
const PIECE = 256 * 1024

/** A file that is written in order and read by position. It takes room until it is closed. Its bytes are sealed. */
export class RoomFile {
  readonly #handle: FileHandle
  readonly #cipher = new FileCipher()
  readonly #room: Room
  size = 0
  readonly #path: string | undefined
  #closed = false

  /** @param path to be unlinked when the file is closed */
  constructor(room: Room, handle: FileHandle, path: string | undefined) {
    this.#handle = handle
    this.#room = room
    this.#path = path
  }

  /** @throws InsufficientStorageError */
  async write(piece: Uint8Array): Promise<void> {
    this.#room.reserve(piece.length)
    const position = this.size
    this.size += piece.length
    const sealed = Buffer.allocUnsafe(Math.min(PIECE, piece.length))
    for (let at = 0; at < piece.length; at += PIECE) {
      const part = piece.subarray(at, at + PIECE)
      this.#cipher.apply(part, position + at, sealed)
      await this.#writeWhole(sealed.subarray(0, part.length), position + at)
    }
  }

  /** Reads bytes as they were written. Reads as many as the file gives, as FileHandle does. */
  async read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number
  ): Promise<{ bytesRead: number }> {
    const { bytesRead } = await this.#handle.read(buffer, offset, length, position)
    const read = buffer.subarray(offset, offset + bytesRead)
    this.#cipher.apply(read, position, read)
    return { bytesRead }
  }

  async #writeWhole(bytes: Buffer, position: number): Promise<void> {
    for (let written = 0; written < bytes.length; ) {
      const left = bytes.length - written
      const { bytesWritten } = await orNoSpace(this.#handle.write(bytes, written, left, position + written))
      written += bytesWritten
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#room.release(this.size)
    await this.#handle.close()
    if (this.#path !== undefined) await unlink(this.#path)
  }
}

const NO_DIRECTORY = 'the directory for uploads, spoolDirectory, is gone or cannot be written'
const NO_SPACE: Record<string, string> = {
  ENOENT: NO_DIRECTORY,
  ENOTDIR: NO_DIRECTORY,
  EACCES: NO_DIRECTORY,
  EROFS: NO_DIRECTORY,
  ENOSPC: 'the disk for uploads is full',
  EDQUOT: 'the disk for uploads is full',
  EMFILE: 'the server has too many files open to take an upload',
  ENFILE: 'the server has too many files open to take an upload'
}

async function orNoSpace<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    const problem = NO_SPACE[(error as NodeJS.ErrnoException).code ?? '']
    throw problem === undefined ? error : new InsufficientStorageError(problem)
  }
}
