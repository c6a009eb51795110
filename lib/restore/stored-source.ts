import type { LogicalDatabase } from '../../types/databases.js'
import type { GrowingBuffer } from '../bytes/growing-buffer.js'
import { apiKey } from '../databases.js'
import type { AboutDatabase } from '../format/about-database.js'
import { documentSteps, InvalidDocumentError, isDesign } from '../json/document.js'
import { DocumentLine } from '../json/document-line.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { LargeDocumentBytes, StoredDocuments } from '../repository/stored-documents.js'
import type { RoomFile } from '../spool/room.js'
import type { Spool } from '../spool/spool.js'
import { inTurnsIfLong } from '../waits/steps.js'
import {
  type FileRange,
  headMemory,
  indexLargeDocument,
  type LargeDocument,
  unrestorable
} from './large-document.js'
import type { RestoreSource, SourceDocument } from './source.js'

/** A backup of this package in the database. */
export class StoredSource implements RestoreSource {
  readonly proof = 'revision'
  readonly #header: LoadedBackup['header']
  readonly #makeSpool: () => Spool
  readonly #databases = new Map<LogicalDatabase, StoredDocuments>()
  #spool: Spool | undefined
  readonly #headMemory = headMemory()
  readonly #line = new DocumentLine()

  private constructor({ header }: LoadedBackup, makeSpool: () => Spool) {
    this.#header = header
    this.#makeSpool = makeSpool
  }

  /** Checks that everything of these databases is as it was stored. @throws DamagedBackupError */
  static async open(
    backup: LoadedBackup,
    wanted: readonly LogicalDatabase[],
    makeSpool: () => Spool
  ): Promise<StoredSource> {
    const source = await StoredSource.openUnchecked(backup, wanted, makeSpool)
    for (const documents of source.#databases.values()) await documents.verify()
    return source
  }

  /** Checks what is read only as it is read: for readers that write nothing. @throws DamagedBackupError */
  static async openUnchecked(
    backup: LoadedBackup,
    wanted: readonly LogicalDatabase[],
    makeSpool: () => Spool
  ): Promise<StoredSource> {
    const source = new StoredSource(backup, makeSpool)
    for (const database of wanted) {
      const documents = await backup.documents(database)
      if (!documents) continue
      documents.checkEntries()
      source.#databases.set(database, documents)
    }
    return source
  }

  get databases(): readonly LogicalDatabase[] {
    return [...this.#databases.keys()]
  }

  about(database: LogicalDatabase): AboutDatabase {
    return this.#header.dbs[apiKey(database)] ?? {}
  }

  count(database: LogicalDatabase): number {
    return this.#databases.get(database)?.count ?? 0
  }

  bytes(database: LogicalDatabase): number | undefined {
    const bytes = this.#header.dbs[apiKey(database)]?.raw_bytes
    return typeof bytes === 'number' ? bytes : undefined
  }

  async *documents(database: LogicalDatabase, design: boolean): AsyncGenerator<SourceDocument[]> {
    const documents = this.#databases.get(database)
    if (!documents) return
    for await (const stored of documents.groups(design)) {
      if (stored.kind === 'large') {
        yield* this.#large(stored)
        continue
      }
      for await (const lines of stored.counting()) {
        const group: SourceDocument[] = []
        for (const line of lines) {
          const usual = this.#line.usual(line, 0, line.length)
          const document = usual ?? (await inTurnsIfLong(line, documentSteps(line)))
          if (isDesign(document.id) === design) group.push(document)
        }
        yield group
      }
    }
  }

  async close(): Promise<void> {
    await this.#spool?.remove()
  }

  async *#large(document: LargeDocumentBytes): AsyncGenerator<SourceDocument[]> {
    this.#spool ??= this.#makeSpool()
    for await (const large of spooledLarge(document, this.#spool, this.#headMemory)) yield [large]
  }
}

/** Yields a large document, which is valid until the next is asked for. */
export async function* spooledLarge(
  document: LargeDocumentBytes,
  spool: Spool,
  memory: GrowingBuffer
): AsyncGenerator<LargeDocument> {
  const file = await document.readAll((pieces) => spooled(pieces, spool))
  try {
    yield await indexed(document, { file, from: 0, to: file.size }, memory)
  } finally {
    await file.close()
  }
}

/** Reads a large document. One that cannot be restored keeps no other from being restored. */
async function indexed(
  { id }: LargeDocumentBytes,
  range: FileRange,
  memory: GrowingBuffer
): Promise<LargeDocument> {
  try {
    return await indexLargeDocument(range, memory)
  } catch (problem) {
    if (!(problem instanceof InvalidDocumentError) || !id) throw problem
    return unrestorable(Buffer.from(JSON.stringify({ _id: id })), problem)
  }
}

async function spooled(pieces: AsyncIterable<Uint8Array>, spool: Spool): Promise<RoomFile> {
  const file = await spool.largeFile()
  try {
    for await (const piece of pieces) await file.write(piece)
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}
