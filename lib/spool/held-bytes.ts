import { SpoolDamagedError } from '../errors.js'
import type { Room, RoomFile } from './room.js'

/** Bytes held in memory before a file is opened. */
const IN_MEMORY = 16 * 1024
/** Bytes of a file read at a time. */
const PIECE = 64 * 1024

/** Keeps bytes of a request until they are stored: a few in memory, more in a file. */
export class HeldBytes {
  readonly #room: Room
  #block: Buffer | undefined
  /** Bytes in the block that are not in the file yet. */
  #used = 0
  #file: RoomFile | undefined

  constructor(room: Room) {
    this.#room = room
  }

  get length(): number {
    return this.#used + (this.#file?.size ?? 0)
  }

  /** Appends bytes. @throws InsufficientStorageError */
  async write(piece: Uint8Array): Promise<void> {
    if (this.#used + piece.length > IN_MEMORY) await this.#flush()
    if (piece.length > IN_MEMORY) {
      await (await this.#opened()).write(piece)
      return
    }
    this.#block ??= Buffer.allocUnsafeSlow(IN_MEMORY)
    this.#block.set(piece, this.#used)
    this.#used += piece.length
  }

  /** Reads all bytes, each time it is called. */
  async *open(): AsyncGenerator<Uint8Array> {
    if (this.#file) yield* this.#fromFile(this.#file)
    else if (this.#block) yield Buffer.from(this.#block.subarray(0, this.#used))
  }

  async clear(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    this.#used = 0
    await file?.close()
  }

  async *#fromFile(file: RoomFile): AsyncGenerator<Uint8Array> {
    await this.#flush()
    for (let at = 0; at < file.size; ) {
      const buffer = Buffer.allocUnsafeSlow(PIECE)
      const { bytesRead } = await file.read(buffer, 0, PIECE, at)
      if (bytesRead === 0) throw new SpoolDamagedError('data were cut off')
      at += bytesRead
      yield buffer.subarray(0, bytesRead)
    }
  }

  async #flush(): Promise<void> {
    if (this.#used === 0 || !this.#block) return
    await (await this.#opened()).write(this.#block.subarray(0, this.#used))
    this.#used = 0
  }

  async #opened(): Promise<RoomFile> {
    this.#file ??= await this.#room.file()
    return this.#file
  }
}
