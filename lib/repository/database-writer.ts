import type { LastCopies } from '../ids/copy-index.js'
import { largeKey } from '../ids/large-key.js'
import { idOf } from '../json/document.js'
import { chunkContents, lineGroups } from './chunk-contents.js'
import { ChunkReader } from './chunk-reader.js'
import { ChunkWriter, type ChunkWriterOptions } from './chunk-writer.js'
import type { ChunkEntry, StoredDatabase } from './layout.js'
import { moveToManifests } from './manifests.js'

/** Stores the documents of one database in a backup: first all of them, then which copies do not count. */
export class DatabaseWriter extends ChunkWriter {
  #chunks: ChunkEntry[] = []
  #superseded: ChunkEntry[] = []
  readonly #onStored: (stored: StoredDatabase) => void

  /** @param onStored is given what the backup's header is to list */
  constructor(options: ChunkWriterOptions, onStored: (stored: StoredDatabase) => void) {
    super(options)
    this.#onStored = onStored
  }

  /** Stores what is left of the documents: no more are added. */
  async endDocuments(): Promise<void> {
    this.#chunks = await this.flush()
  }

  /** Stores which copies count. @returns how many do not; `onDropped` gets their numbers */
  async supersede(copies: LastCopies, onDropped: (ordinal: number) => void): Promise<number> {
    if (copies.size === 0) return 0
    let dropped = 0
    let ordinal = 0
    const visit = (key: string): Promise<void> | undefined => {
      const at = ordinal++
      if (copies.isLast(key, at)) return undefined
      dropped++
      onDropped(at)
      const last = copies.takeOnce(key)
      return last === undefined ? undefined : this.add(Buffer.from(JSON.stringify([key, last])))
    }
    for await (const keys of this.#keys()) {
      for (const key of keys) {
        const pending = visit(key)
        if (pending) await pending
      }
    }
    this.#superseded = await this.flush()
    return dropped
  }

  /** Yields the keys of all documents that were stored, in groups. */
  async *#keys(): AsyncGenerator<string[]> {
    const reader = new ChunkReader(this.options.db, this.options.codec)
    for await (const { entry, lines } of chunkContents(reader, this.#chunks, { ahead: false })) {
      if (lines === null) yield [entry.large as string]
      else for await (const group of lineGroups(lines)) yield group.map((line) => largeKey(idOf(line)))
    }
  }

  /** Enters what was stored in the backup. @returns bytes of lines, and how many they take stored */
  async finish(): Promise<{ rawBytes: number; storedBytes: number }> {
    const { db, backup, database } = this.options
    const stored: StoredDatabase = { manifests: [], chunks: this.#chunks, superseded: this.#superseded }
    const all = [...this.#chunks, ...this.#superseded]
    await moveToManifests(db, backup, database, stored)
    this.#onStored(stored)
    return {
      rawBytes: all.reduce((sum, chunk) => sum + chunk.raw, 0),
      storedBytes: all.reduce((sum, chunk) => sum + chunk.stored, 0)
    }
  }
}
