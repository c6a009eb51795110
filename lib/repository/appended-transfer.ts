import { shownName } from '../bytes/cut-text.js'
import { sameStream } from '../bytes/same-stream.js'
import { watchedSource } from '../bytes/watched-source.js'
import { type AttachmentStub, canBeReadAlone, readAlone, stubOf } from '../couch/attachments.js'
import type { CouchDatabase } from '../couch/database.js'
import { isConflict } from '../couch/errors.js'
import { BackupNotCopyableError, CopyConflictError } from '../errors.js'
import type { StubMembers } from '../json/attachments.js'
import { readInPlace } from './read-header.js'

/** Attempts to store one attachment, where answers are lost. */
const ATTEMPTS = 8

/** The attachments appended to a document, by name. */
type Appended = Readonly<Record<string, StubMembers>>

interface AppendedTransferOptions {
  /** Id of the backup, and of the document with which the appended attachments are stored. */
  id: string
  /** Revision of the backup's header. */
  rev: string
  from: CouchDatabase
  to: CouchDatabase
  /** The attachments that clients have appended to the backup. */
  appended: Appended
  onCopied(stub: AttachmentStub): void
}

/** Stores what clients have appended to a backup with the document that is there under its id. */
export class AppendedTransfer {
  readonly #options: AppendedTransferOptions

  constructor(options: AppendedTransferOptions) {
    this.#options = options
  }

  /** Finds out whether all can be copied, and writes nothing. @throws BackupNotCopyableError */
  survey(): void {
    const { id, rev, from } = this.#options
    for (const stub of this.#stubs())
      if (!canBeReadAlone(from, { id, rev }, stub))
        throw new BackupNotCopyableError(
          id,
          `its attachment "${shownName(stub.name)}" cannot be sent by HTTP`
        )
  }

  /** Stores what is missing, in place of others of the same names: clients may replace what they have appended. */
  async store(): Promise<void> {
    for (const stub of this.#stubs()) if (await this.#store(stub)) this.#options.onCopied(stub)
  }

  *#stubs(): Generator<AttachmentStub> {
    for (const [name, members] of Object.entries(this.#options.appended)) yield stubOf(name, members)
  }

  /** @returns whether it had to be stored */
  async #store(stub: AttachmentStub): Promise<boolean> {
    const { id, to } = this.#options
    for (let attempt = 1; ; attempt++) {
      const place = await readInPlace(to, id)
      const there = ownOf(place?._attachments ?? {}, stub.name)
      if (there !== undefined && (await this.#isSame(stub, there))) return attempt > 1
      if (!place || attempt > ATTEMPTS)
        throw new CopyConflictError(
          id,
          to.name,
          `its attachment "${shownName(stub.name)}" does not stay there`
        )
      // Read again in any case: what the database shows counts, not its answer.
      await this.#put(stub, place._rev)
      await (attempt > 1 && to.client.afterConflict(attempt))
    }
  }

  async #put(stub: AttachmentStub, place: string): Promise<void> {
    const { id, to } = this.#options
    const { name, contentType, length } = stub
    const { open, failure } = watchedSource(() => this.#read(stub))
    try {
      await to.putAttachment(id, name, place, String(contentType), { open, length })
    } catch (error) {
      if (!isConflict(error)) throw failure() ?? error
    }
  }

  #read(stub: AttachmentStub): AsyncGenerator<Uint8Array> {
    const { id, rev, from } = this.#options
    return readAlone(from, { id, rev }, stub)
  }

  async #isSame(stub: AttachmentStub, there: StubMembers): Promise<boolean> {
    const { id, to } = this.#options
    const other = stubOf(stub.name, there)
    if (other.contentType !== stub.contentType) return false
    if (stub.length !== undefined && other.length !== undefined && other.length !== stub.length) return false
    if (stub.gzip === other.gzip && stub.digest !== undefined && stub.digest === other.digest) return true
    // The bytes decide: each server compresses texts in its own way, and tells the digest of what it stores.
    const { body } = await to.attachment(id, stub.name)
    return sameStream(this.#read(stub), body)
  }
}

/** Returns a member, unless it is one that all objects have: names may be anything. */
const ownOf = (appended: Appended, name: string): StubMembers | undefined =>
  Object.hasOwn(appended, name) ? appended[name] : undefined
