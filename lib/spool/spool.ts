import type { LogicalDatabase } from '../../types/databases.js'
import { SpoolDamagedError } from '../errors.js'
import type { Room, RoomFile } from './room.js'

const BLOCK = 256 * 1024
/** Bytes of length and ordinal before each document. */
const FRAME = 8

interface Spooled {
  ordinal: number
  bytes: Buffer
}

/** Keeps documents of a backup on the host's disk. */
export class Spool {
  readonly #room: Room
  readonly #files = new Map<string, DocumentFile>()
  readonly #large: RoomFile[] = []

  constructor(room: Room) {
    this.#room = room
  }

  /** @throws InsufficientStorageError */
  async append(database: LogicalDatabase, design: boolean, { ordinal, bytes }: Spooled): Promise<void> {
    const file = await this.#file(nameOf(database, design))
    await file.append(ordinal, bytes)
  }

  /** Writes to the disk what was appended. @throws InsufficientStorageError */
  async flush(): Promise<void> {
    for (const file of this.#files.values()) await file.flush()
  }

  /** Yields documents in the order of appending, in groups valid until the next is asked for. */
  async *read(database: LogicalDatabase, design: boolean): AsyncGenerator<Spooled[]> {
    const file = this.#files.get(nameOf(database, design))
    if (file) yield* file.read()
  }

  async largeFile(): Promise<RoomFile> {
    const file = await this.#room.file()
    this.#large.push(file)
    return file
  }

  /** Removes all files, and gives the room back. */
  async remove(): Promise<void> {
    const files = [...[...this.#files.values()].map(({ file }) => file), ...this.#large]
    await Promise.all(files.map((file) => file.close().catch(() => undefined)))
  }

  async #file(name: string): Promise<DocumentFile> {
    let file = this.#files.get(name)
    if (!file) {
      file = new DocumentFile(await this.#room.file())
      this.#files.set(name, file)
    }
    return file
  }
}

class DocumentFile {
  readonly file: RoomFile
  #block = Buffer.allocUnsafeSlow(BLOCK)
  #used = 0

  constructor(file: RoomFile) {
    this.file = file
  }

  async append(ordinal: number, bytes: Buffer): Promise<void> {
    if (this.#used + FRAME + bytes.length > BLOCK) await this.flush()
    this.#block.writeUInt32LE(bytes.length, this.#used)
    this.#block.writeUInt32LE(ordinal, this.#used + 4)
    this.#used += FRAME
    if (this.#used + bytes.length > BLOCK) {
      await this.flush()
      await this.file.write(bytes)
    } else this.#used += bytes.copy(this.#block, this.#used)
  }

  async *read(): AsyncGenerator<Spooled[]> {
    await this.flush()
    const { size: length } = this.file
    let buffer = Buffer.allocUnsafeSlow(BLOCK)
    /** Bytes at the buffer's beginning that belong to no group yet. */
    let kept = 0
    for (let position = 0; position < length; ) {
      const needed = Math.max(BLOCK, kept >= FRAME ? FRAME + buffer.readUInt32LE(0) : 0)
      if (needed > buffer.length) buffer = Buffer.concat([buffer.subarray(0, kept)], needed)
      const wanted = Math.min(length - position, needed - kept)
      const { bytesRead } = await this.file.read(buffer, kept, wanted, position)
      if (bytesRead < wanted) throw new SpoolDamagedError('an upload was cut off')
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

  async flush(): Promise<void> {
    if (this.#used === 0) return
    await this.file.write(this.#block.subarray(0, this.#used))
    this.#used = 0
  }
}

const nameOf = (database: LogicalDatabase, design: boolean) => `${database}${design ? '.design' : ''}`
