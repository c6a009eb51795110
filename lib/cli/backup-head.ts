import type { BackupSummary } from '../../types/backups.js'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  type JsonVisitor
} from '../json/scanner.js'
import type { Call, Client } from './client.js'
import { CliError } from './errors.js'

/** The members before a backup's documents; of a running backup, sent without them, also its `dbs`. */
export type BackupHead = Partial<BackupSummary> & Pick<BackupSummary, 'id' | 'in_progress' | 'doc_count'>

export const backupCall = (id: string): Call => ({ path: ['backups', id] })

/** Reads a backup's head, and transfers no documents but those already under way. */
export function readHead(client: Client, id: string): Promise<BackupHead> {
  return client.retry(async () => {
    const { body } = await client.open(backupCall(id))
    const reader = new HeadReader()
    for await (const piece of body) if (reader.write(piece)) break
    return reader.head
  })
}

/** Finds the head in the bytes of a backup. */
export class HeadReader implements JsonVisitor {
  readonly #scanner = new JsonScanner(this)
  readonly #head: Record<string, unknown> = {}
  readonly #databases: Record<string, Record<string, unknown>> = {}
  #done = false
  #pieces: Buffer[] = []

  /** Takes more bytes. @returns whether the head is known. @throws CliError when they are not a backup's */
  write(piece: Uint8Array): boolean {
    try {
      if (!this.#done) this.#scanner.write(piece)
    } catch (error) {
      throw new CliError(`the reply is not a backup: ${(error as Error).message}`)
    }
    return this.#done
  }

  /** @throws CliError when it has not come */
  get head(): BackupHead {
    const { id, in_progress } = this.#head
    if (!this.#done || typeof id !== 'string' || typeof in_progress !== 'boolean')
      throw new CliError('the reply is not a backup; is BACKUPS_URL right?')
    return this.#head as unknown as BackupHead
  }

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length === 0) return 'enter'
    if (this.#done) return 'skip'
    if (path[0] !== 'dbs') return 'stream'
    if (path.length === 1) {
      this.#done = this.#head.in_progress !== true || kind !== 'object'
      if (!this.#done) this.#head.dbs = this.#databases
      return this.#done ? 'skip' : 'enter'
    }
    if (path.length === 2) {
      this.#databases[path[1]] = {}
      return 'enter'
    }
    return path[2] === 'docs' ? 'skip' : 'stream'
  }

  bytes(piece: Uint8Array): void {
    this.#pieces.push(Buffer.from(piece))
  }

  end(path: JsonPath): void {
    if (path.length === 0 || (path.length === 1 && path[0] === 'dbs')) this.#done = true
    if (this.#pieces.length === 0) return
    const value: unknown = JSON.parse(Buffer.concat(this.#pieces).toString())
    this.#pieces = []
    if (path.length === 1) this.#head[path[0]] = value
    else if (path.length === 3) this.#databases[path[1]][path[2]] = value
  }
}
