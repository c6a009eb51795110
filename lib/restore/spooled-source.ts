import type { LogicalDatabase } from '../../types/databases.js'
import { apiKey } from '../databases.js'
import { InvalidBackupError, TooLargeError, TooManyRepeatedError } from '../errors.js'
import { type AboutDatabase, checkAbout } from '../format/about-database.js'
import { type BackupItem, type ReadBackupOptions, readBackup } from '../format/read-backup.js'
import { fingerprint } from '../ids/fingerprint.js'
import { VersionIndex } from '../ids/version-index.js'
import { type DocumentBytes, documentSteps, InvalidDocumentError, isDesign } from '../json/document.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'
import type { RoomFile } from '../spool/room.js'
import type { Spool } from '../spool/spool.js'
import { inTurns, inTurnsIfLong, sharedTurn } from '../waits/steps.js'
import { checkAttachments } from './check-attachments.js'
import {
  type FileRange,
  headMemory,
  indexLargeDocument,
  type LargeDocument,
  LargeHeadError,
  nameLargeDocument
} from './large-document.js'
import type { RestoreSource, SourceDocument } from './source.js'

type Range = Omit<FileRange, 'file'>

/** The place of a large document: each takes more than 4 MiB of the upload, so they are few. */
interface SpooledLarge extends Range {
  ordinal: number
  design: boolean
}

/** A backup given as JSON: read whole, checked and kept on disk before anything is restored from it. */
export class SpooledSource implements RestoreSource {
  readonly proof: RestoreSource['proof']
  /** Members beside `dbs`. */
  readonly members: Record<string, unknown> = {}
  readonly #spool: Spool
  readonly #versions = new Map<LogicalDatabase, VersionIndex>()
  readonly #about = new Map<LogicalDatabase, AboutDatabase>()
  readonly #large = new Map<LogicalDatabase, SpooledLarge[]>()
  /** Holds all large documents; the one at hand begins there. */
  #largeFile: RoomFile | undefined
  #largeFrom: number | undefined
  readonly #headMemory = headMemory()

  private constructor(spool: Spool, proof: RestoreSource['proof']) {
    this.#spool = spool
    this.proof = proof
  }

  /**
   * @param spool is removed when this fails, and by `close` @param options.proof `content` for uploads
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
        for (const item of items) {
          await sharedTurn()
          await source.#add(item)
        }
      }
      source.#checkMissing()
      await spool.flush()
      return source
    } catch (error) {
      await source.close()
      throw error
    }
  }

  /** Spools a backup that athena made and that lies in the database. @throws what {@link read} throws */
  static ofLegacy(
    backup: LoadedBackup,
    makeSpool: () => Spool,
    options: ReadBackupOptions
  ): Promise<SpooledSource> {
    const read = (body: AsyncIterable<Uint8Array>) =>
      SpooledSource.read(body, makeSpool(), { ...options, proof: 'revision' })
    return backup.legacyDocument().readAll(read)
  }

  get databases(): readonly LogicalDatabase[] {
    return [...this.#versions.keys()].filter((database) => !this.about(database).missing)
  }

  about(database: LogicalDatabase): AboutDatabase {
    return this.#about.get(database) ?? {}
  }

  count(database: LogicalDatabase): number {
    return this.#versions.get(database)?.count ?? 0
  }

  bytes(): undefined {
    return undefined
  }

  async *documents(database: LogicalDatabase, design: boolean): AsyncGenerator<SourceDocument[]> {
    const versions = this.#versions.get(database)
    if (!versions) return
    for await (const spooled of this.#spool.read(database, design)) {
      const group: SourceDocument[] = []
      for (const { ordinal, bytes } of spooled) {
        await sharedTurn()
        const document = await inTurnsIfLong(bytes, documentSteps(bytes))
        if (versions.isLast(fingerprint(document.id), ordinal)) group.push(document)
      }
      yield group
    }
    for (const large of this.#large.get(database) ?? []) {
      if (large.design !== design) continue
      const document = await this.#indexLarge(large)
      if (versions.isLast(fingerprint(document.head.id), large.ordinal)) yield [document]
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

  async #add(item: BackupItem): Promise<void> {
    switch (item.kind) {
      case 'member':
        this.members[item.name] = item.value
        return
      case 'database':
        this.#versions.set(item.database, new VersionIndex())
        return
      case 'about': {
        const { database, name, value, where } = item
        this.#about.set(database, { ...this.about(database), ...checkAbout(name, value, where) })
        return
      }
      case 'document': {
        const document = await checked(item.where, () => readUploaded(item.bytes))
        const ordinal = this.#note(item.database, document)
        return this.#spool.append(item.database, isDesign(document.id), { ordinal, bytes: item.bytes })
      }
      case 'piece': {
        this.#largeFile ??= await this.#spool.largeFile()
        this.#largeFrom ??= this.#largeFile.size
        await this.#largeFile.write(item.bytes)
        if (item.last) {
          const range = { from: this.#largeFrom, to: this.#largeFile.size }
          this.#largeFrom = undefined
          await this.#addLarge(item.database, item.where, range)
        }
      }
    }
  }

  async #addLarge(database: LogicalDatabase, where: string, range: Range): Promise<void> {
    const { head } = await checked(where, () => this.#indexLarge(range))
    const large = this.#large.get(database) ?? []
    large.push({ ordinal: this.#note(database, head), design: isDesign(head.id), ...range })
    this.#large.set(database, large)
  }

  /** Reads one large document at a time. One that exceeds the limits must not block the others. */
  async #indexLarge({ from, to }: Range): Promise<LargeDocument> {
    const file = this.#largeFile as RoomFile
    const range = { file, from, to }
    try {
      return await indexLargeDocument(range, this.#headMemory)
    } catch (error) {
      if (!(error instanceof LargeHeadError)) throw error
      return nameLargeDocument(range, this.#headMemory, error)
    }
  }

  /** Notes a version of a document. One that is deleted also revokes the versions before it. */
  #note(database: LogicalDatabase, document: DocumentBytes): number {
    try {
      return (this.#versions.get(database) as VersionIndex).note(fingerprint(document.id))
    } catch (error) {
      if (!(error instanceof TooManyRepeatedError)) throw error
      throw new TooLargeError(`of the documents of ${database}, ${error.message}`)
    }
  }
}

async function readUploaded(bytes: Buffer): Promise<DocumentBytes> {
  const document = await inTurnsIfLong(bytes, documentSteps(bytes))
  if (document.attachments) await inTurns(checkAttachments(document))
  return document
}

async function checked<T>(where: string, read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (error instanceof InvalidDocumentError) throw new InvalidBackupError(`${where}: ${error.message}`)
    throw error
  }
}
