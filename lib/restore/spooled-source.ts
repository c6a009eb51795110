import type { LogicalDatabase } from '../../types/databases.js'
import { InvalidBackupError } from '../errors.js'
import { type DocumentBytes, InvalidDocumentError, readDocument } from '../json/document.js'
import { CopyIndex } from '../store/copy-index.js'
import { apiKey } from '../store/names.js'
import { type AboutDatabase, checkAbout } from './about-database.js'
import { checkAttachments } from './check-attachments.js'
import { indexLargeDocument, type LargeDocument } from './large-document.js'
import { type BackupItem, type ReadBackupOptions, readBackup } from './read-backup.js'
import type { RestoreSource, SourceDocument } from './source.js'
import type { LargeFile, Spool } from './spool.js'

/** How many documents the filter of repeated ids is made for: an upload does not tell how many it has. */
const EXPECTED_DOCUMENTS = 500_000

interface SpooledLarge {
  ordinal: number
  design: boolean
  document: LargeDocument
}

/** A backup given as JSON: read whole, checked and kept on disk before anything is restored from it. */
export class SpooledSource implements RestoreSource {
  readonly proof: RestoreSource['proof']
  /** Members beside `dbs`. */
  readonly members: Record<string, unknown> = {}
  readonly #spool: Spool
  readonly #copies = new Map<LogicalDatabase, CopyIndex>()
  readonly #about = new Map<LogicalDatabase, AboutDatabase>()
  readonly #large = new Map<LogicalDatabase, SpooledLarge[]>()
  /** Holds all large documents; the one at hand begins there. */
  #largeFile: LargeFile | undefined
  #largeFrom: number | undefined

  private constructor(spool: Spool, proof: RestoreSource['proof']) {
    this.#spool = spool
    this.proof = proof
  }

  /**
   * @param spool is removed when this fails, and by `close`
   * @param options.proof `revision` for what a database has kept, `content` for what a client sends
   * @throws InvalidBackupError, TooLargeError, InsufficientStorageError
   */
  static async read(
    body: AsyncIterable<Uint8Array>,
    spool: Spool,
    options: ReadBackupOptions & { proof: RestoreSource['proof'] }
  ): Promise<SpooledSource> {
    const source = new SpooledSource(spool, options.proof)
    try {
      for await (const items of readBackup(body, options)) {
        for (const item of items) await source.#take(item)
      }
      source.#checkMissing()
      await spool.flush()
      return source
    } catch (error) {
      await source.close()
      throw error
    }
  }

  get databases(): readonly LogicalDatabase[] {
    return [...this.#copies.keys()].filter((database) => !this.about(database).missing)
  }

  about(database: LogicalDatabase): AboutDatabase {
    return this.#about.get(database) ?? {}
  }

  count(database: LogicalDatabase): number {
    const copies = this.#copies.get(database)
    return copies ? copies.copies : 0
  }

  async *documents(database: LogicalDatabase, design: boolean): AsyncGenerator<SourceDocument[]> {
    const copies = this.#copies.get(database)
    if (!copies) return
    for await (const spooled of this.#spool.read(database, design)) {
      const group: SourceDocument[] = []
      for (const { ordinal, bytes } of spooled) {
        const document = readDocument(bytes)
        if (copies.isLast(document.id, ordinal)) group.push(document)
      }
      yield group
    }
    for (const large of this.#large.get(database) ?? []) {
      if (large.design === design && copies.isLast(large.document.head.id, large.ordinal))
        yield [large.document]
    }
  }

  async close(): Promise<void> {
    await this.#spool.remove()
  }

  /** @throws InvalidBackupError */
  #checkMissing(): void {
    for (const [database, { missing }] of this.#about) {
      if (missing && this.count(database) > 0)
        throw new InvalidBackupError(
          `"dbs.${apiKey(database)}.missing" says that there was no such database, but there are documents`
        )
    }
  }

  async #take(item: BackupItem): Promise<void> {
    switch (item.kind) {
      case 'member':
        this.members[item.name] = item.value
        return
      case 'database':
        this.#copies.set(item.database, new CopyIndex(EXPECTED_DOCUMENTS))
        return
      case 'about': {
        const { database, name, value, where } = item
        this.#about.set(database, { ...this.about(database), ...checkAbout(name, value, where) })
        return
      }
      case 'document': {
        const document = checked(item.where, () => readUploaded(item.bytes))
        const ordinal = this.#note(item.database, document)
        return this.#spool.append(item.database, isDesign(document), { ordinal, bytes: item.bytes })
      }
      case 'piece': {
        this.#largeFile ??= await this.#spool.largeFile()
        this.#largeFrom ??= this.#largeFile.size
        await this.#largeFile.write(item.bytes)
        if (item.last) await this.#endLarge(this.#largeFile, this.#largeFrom, item)
      }
    }
  }

  async #endLarge(
    { handle, size }: LargeFile,
    from: number,
    { database, where }: { database: LogicalDatabase; where: string }
  ): Promise<void> {
    this.#largeFrom = undefined
    const document = await indexLargeDocument({ file: handle, from, to: size }).catch((error: unknown) =>
      checked(where, () => {
        throw error
      })
    )
    const ordinal = this.#note(database, document.head)
    const large = this.#large.get(database) ?? []
    large.push({ ordinal, design: isDesign(document.head), document })
    this.#large.set(database, large)
  }

  /** A copy that says "deleted" leaves nothing to restore of the copies before it. */
  #note(database: LogicalDatabase, document: DocumentBytes): number {
    return (this.#copies.get(database) as CopyIndex).note(document.id)
  }
}

function readUploaded(bytes: Buffer): DocumentBytes {
  const document = readDocument(bytes)
  checkAttachments(document)
  return document
}

function checked<T>(where: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof InvalidDocumentError) throw new InvalidBackupError(`${where}: ${error.message}`)
    throw error
  }
}

const isDesign = ({ id }: DocumentBytes) => id.startsWith('_design/')
