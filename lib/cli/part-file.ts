import { type FileHandle, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { CliError, fileError, usageError } from './errors.js'
import { isGzipName, MemberWriter, readGzipFile } from './gzip-file.js'

/** Bytes of the backup between two syncs to the disk, so that a crash loses no more. */
const SYNC_BYTES = 64 * 1024 * 1024

interface Note {
  id: string
  etag: string
  /** Bytes of the backup that are surely on the disk. */
  bytes: number
  /** Bytes of the file that hold them. */
  size: number
}

export interface Sink {
  /** Bytes of the backup taken so far. */
  readonly position: number
  /** Tag of the written content; without one, nothing can be added. */
  readonly etag: string | undefined
  /** Begins, or begins again, with content of this tag. @throws CliError when that cannot be done */
  begin(etag: string | undefined): Promise<void>
  write(piece: Uint8Array): Promise<void>
}

/**
 * A file named `.part` until it is complete, which can be continued later. One whose name ends in `.gz` is
 * compressed: the note is written between members, so what follows it after a crash is cut off.
 */
export class PartFile implements Sink {
  readonly #path: string
  readonly #id: string
  readonly #handle: FileHandle
  readonly #members: MemberWriter | undefined
  #size: number
  #synced: number
  position: number
  etag: string | undefined

  private constructor(path: string, id: string, handle: FileHandle, note: Note | undefined) {
    this.#path = path
    this.#id = id
    this.#handle = handle
    this.#members = isGzipName(path) ? new MemberWriter() : undefined
    this.#size = note?.size ?? 0
    this.position = note?.bytes ?? 0
    this.#synced = this.position
    this.etag = note?.etag
  }

  /** Bytes of the file. */
  get size(): number {
    return this.#size
  }

  /** Opens the `.part` of a file to continue an earlier attempt. `force` replaces an existing file. */
  static async open(path: string, id: string, force: boolean): Promise<PartFile> {
    if (!force) await refuseExisting(path)
    const note = await readNote(path, id)
    return orFileError(partOf(path), async () => {
      // A backup holds secrets.
      const handle = await open(partOf(path), note ? 'r+' : 'w+', 0o600)
      await handle.truncate(note?.size ?? 0)
      return new PartFile(path, id, handle, note)
    })
  }

  async begin(etag: string | undefined): Promise<void> {
    await orFileError(partOf(this.#path), async () => {
      await rm(noteOf(this.#path), { force: true })
      await this.#handle.truncate(0)
    })
    this.#members?.clear()
    this.#size = 0
    this.position = 0
    this.#synced = 0
    this.etag = etag
  }

  async write(piece: Uint8Array): Promise<void> {
    this.position += piece.length
    await this.#append(this.#members ? await this.#members.write(piece) : piece)
    if (this.position - this.#synced >= SYNC_BYTES) await this.#sync()
  }

  async #append(bytes: Uint8Array): Promise<void> {
    await orFileError(partOf(this.#path), async () => {
      for (let at = 0; at < bytes.length; ) {
        const { bytesWritten } = await this.#handle.write(bytes, at, bytes.length - at, this.#size)
        at += bytesWritten
        this.#size += bytesWritten
      }
    })
  }

  /** Appends what is held. */
  async #flush(): Promise<void> {
    if (this.#members) await this.#append(await this.#members.flush())
  }

  /** Checks the file, and gives it its name. @throws CliError for one that is not whole, which is removed */
  async finish(force: boolean): Promise<void> {
    await this.#flush()
    try {
      await this.#checkEnd()
    } catch (error) {
      await this.discard()
      throw error
    }
    await orFileError(partOf(this.#path), async () => {
      await this.#handle.sync()
      await this.#handle.close()
    })
    if (!force) await refuseExisting(this.#path)
    await orFileError(partOf(this.#path), async () => {
      await rename(partOf(this.#path), this.#path)
      await rm(noteOf(this.#path), { force: true })
      await syncDirectory(dirname(this.#path))
    })
  }

  /** Reads all of a compressed file again: its last byte cannot be read alone. @throws CliError */
  async #checkEnd(): Promise<void> {
    const last = this.#members ? await this.#lastInflated() : await this.#lastByte()
    if (last !== '}') throw new CliError('what came does not end as a backup does')
  }

  async #lastInflated(): Promise<string | undefined> {
    const { length, tail } = await readGzipFile(partOf(this.#path))
    if (length !== this.position) throw new CliError(`${partOf(this.#path)} does not hold what came`)
    return tail.at(-1)
  }

  async #lastByte(): Promise<string> {
    const last = Buffer.alloc(1)
    await orFileError(partOf(this.#path), () => this.#handle.read(last, 0, 1, this.#size - 1))
    return last.toString()
  }

  /** Leaves the part for a later attempt. @returns whether there is something to continue */
  async suspend(): Promise<boolean> {
    const worth = this.etag !== undefined && this.position > 0
    if (worth) await this.#sync()
    await this.#handle.close().catch(() => undefined)
    if (!worth) await this.#remove()
    return worth
  }

  async discard(): Promise<void> {
    await this.#handle.close().catch(() => undefined)
    await this.#remove()
  }

  async #sync(): Promise<void> {
    await this.#flush()
    await orFileError(partOf(this.#path), async () => {
      await this.#handle.datasync()
      if (this.etag === undefined) return
      const note: Note = { id: this.#id, etag: this.etag, bytes: this.position, size: this.#size }
      await writeFile(noteOf(this.#path), JSON.stringify(note), { mode: 0o600 })
      this.#synced = this.position
    })
  }

  async #remove(): Promise<void> {
    await orFileError(partOf(this.#path), async () => {
      await rm(partOf(this.#path), { force: true })
      await rm(noteOf(this.#path), { force: true })
    })
  }
}

/** Runs `action`, and names the file at `path` in its failure. @throws CliError */
async function orFileError<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action()
  } catch (error) {
    throw fileError(error, path)
  }
}

const partOf = (path: string) => `${path}.part`
const noteOf = (path: string) => `${path}.part.json`

async function refuseExisting(path: string): Promise<void> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw fileError(error, path)
  })
  if (found) throw usageError(`${path} exists: --force replaces it`)
}

/** Returns the note of an earlier attempt, if the file still holds that many bytes. */
async function readNote(path: string, id: string): Promise<Note | undefined> {
  try {
    const note: Partial<Note> = JSON.parse(await readFile(noteOf(path), 'utf8'))
    const found = await stat(partOf(path))
    const { etag, bytes = 0, size = 0 } = note
    const usable = note.id === id && typeof etag === 'string' && [bytes, size].every(Number.isSafeInteger)
    return usable && bytes > 0 && size > 0 && size <= found.size ? (note as Note) : undefined
  } catch {
    // No note, or one torn by a crash: the download begins anew.
    return undefined
  }
}

/** Makes a new name survive a crash, where directories can be synchronized. */
async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const directory = await open(path)
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
