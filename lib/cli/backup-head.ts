import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  type JsonVisitor
} from '../json/scanner.js'
import type { Call, Client } from './client.js'
import { CliError, EXIT } from './errors.js'

/** What a backup says of itself before its documents. */
export interface BackupHead {
  id: string
  in_progress: boolean
  doc_count: number
  error?: string
  elapsed?: string
  /** Documents that could not be backed up. */
  unreadable_count?: number
  /** Keys of databases that did not exist. */
  missing_databases?: string[]
  /** Finished databases of a running backup, which is sent without documents. */
  dbs?: Record<string, { doc_count?: number }>
  [member: string]: unknown
}

export const backupCall = (id: string): Call => ({ path: ['backups', id] })

/** Reads a backup's head; the documents are not transferred, but for what is under way. */
export async function readHead(client: Client, id: string): Promise<BackupHead> {
  return client.retry(async () => {
    const { body } = await client.open(backupCall(id))
    const reader = new HeadReader()
    for await (const piece of body) if (reader.write(piece)) break
    return reader.head
  })
}

/** Finds the head in the bytes of a backup. */
export class HeadReader {
  readonly #visitor = new HeadVisitor()
  readonly #scanner = new JsonScanner(this.#visitor)

  /** Takes the next bytes. @returns whether the head is known. @throws CliError when they are not a backup's */
  write(piece: Uint8Array): boolean {
    try {
      if (!this.#visitor.done) this.#scanner.write(piece)
    } catch (error) {
      throw new CliError(EXIT.failed, `the reply is not a backup: ${(error as Error).message}`)
    }
    return this.#visitor.done
  }

  /** @throws CliError when it has not come */
  get head(): BackupHead {
    const { head, done } = this.#visitor
    if (!done || typeof head.id !== 'string' || typeof head.in_progress !== 'boolean') {
      throw new CliError(EXIT.failed, 'the reply is not a backup; is BACKUPS_URL right?')
    }
    return head as BackupHead
  }
}

class HeadVisitor implements JsonVisitor {
  readonly head: Record<string, unknown> & { dbs?: Record<string, Record<string, unknown>> } = {}
  done = false
  #pieces: Buffer[] = []

  begin(path: JsonPath, kind: JsonKind): JsonAction {
    if (path.length === 0) return 'enter'
    if (this.done) return 'skip'
    if (path[0] !== 'dbs') return 'stream'
    if (path.length === 1) {
      this.done = this.head.in_progress !== true || kind !== 'object'
      this.head.dbs = this.done ? undefined : {}
      return this.done ? 'skip' : 'enter'
    }
    if (path.length === 2) {
      this.head.dbs![path[1]] = {}
      return 'enter'
    }
    return path[2] === 'docs' ? 'skip' : 'stream'
  }

  bytes(piece: Uint8Array): void {
    this.#pieces.push(Buffer.from(piece))
  }

  end(path: JsonPath): void {
    if (path.length === 0 || (path.length === 1 && path[0] === 'dbs')) this.done = true
    if (this.#pieces.length === 0) return
    const value: unknown = JSON.parse(Buffer.concat(this.#pieces).toString())
    this.#pieces = []
    if (path.length === 1) this.head[path[0]] = value
    else if (path.length === 3) this.head.dbs![path[1]]![path[2]] = value
  }
}
