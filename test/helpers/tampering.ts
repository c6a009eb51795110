import type { Test } from 'tap'
import type { StoredHeader } from '../../lib/repository/layout.js'
import type { Encryption } from '../../types/index.js'
import { backUp, type ChainDatabases, change, docs, documents, setupChain } from './chain.js'
import { buildHost, type TestHost } from './host.js'
import { encryptionOf } from './sealed.js'

const SEALED = 'documents.ndjson.gz.sealed'

/** A sealed backup that shares chunks with an earlier one, and what somebody who can write to its database does. */
interface Tampered {
  on: ChainDatabases
  host: TestHost
  /** The backup that is harmed. */
  id: string
  /** Chunks that it lists: documents first, then its index. */
  chunks: string[]
  readChunk(id: string): Promise<Buffer>
  /** Puts other bytes in place, and changes nothing else. */
  writeChunk(id: string, bytes: Buffer): Promise<void>
  header(): Promise<StoredHeader>
  writeHeader(header: object): Promise<void>
  /** Reads the backup as a client, and starts to restore it. Returns what neither has refused. */
  unnoticed(): Promise<string[]>
}

/** Makes two backups that share chunks, and deletes the documents: a restore that begins shows in the database. */
export async function setupTampered(t: Test, more: Partial<Encryption> = {}): Promise<Tampered> {
  const on = await setupChain(t)
  await on.write(on.names.components, documents(60))
  await on.write(on.names.system, documents(3))
  const host = await buildHost(t, { on, databases: on.names, encryption: { ...encryptionOf('k1'), ...more } })
  await backUp(host)
  await change(on, on.names.components, docs('doc_00001', 'added'))
  const { id } = await backUp(host)
  await on.remake(on.names.components)
  const db = on.couch.use(on.names.backups)
  const header = async () => (await db.get(id)) as unknown as StoredHeader
  const listed = Object.values((await header()).storage.databases)
  const target = async () => (await on.call('GET', on.names.components)).doc_count as number
  return {
    on,
    host,
    id,
    chunks: [
      ...listed.flatMap((stored) => stored!.chunks.map(({ id }) => id)),
      ...listed.flatMap((stored) => stored!.index!.map(({ id }) => id))
    ],
    header,
    readChunk: async (chunk) => (await db.attachment.get(chunk, SEALED)) as Buffer,
    async writeChunk(chunk, bytes) {
      const { _rev: rev } = await db.get(chunk)
      await db.attachment.insert(chunk, SEALED, bytes, 'application/octet-stream', { rev })
    },
    async writeHeader(changed) {
      const { _rev } = await header()
      await db.insert({ ...changed, _id: id, _rev } as never)
    },
    async unnoticed() {
      const found: string[] = []
      const { dbBackups } = host.app
      const read = async () => {
        const { body } = await dbBackups.get(id)
        for await (const _piece of body);
      }
      await read().then(
        () => found.push('get'),
        (error) => !isRefused(error) && found.push(`get: ${error.message}`)
      )
      const restore = async () => (await dbBackups.restore({ id })).finished
      await restore().then(
        () => found.push('restore'),
        (error) => !isRefused(error) && found.push(`restore: ${error.message}`)
      )
      if ((await target()) !== 0) found.push('documents were written')
      return found
    }
  }
}

const isRefused = ({ code }: { code?: string }): boolean =>
  [
    'DB_BACKUPS_DAMAGED',
    'DB_BACKUPS_NOT_RESTORABLE',
    'DB_BACKUPS_UNKNOWN_LAYOUT',
    'DB_BACKUPS_KEY_UNAVAILABLE',
    'DB_BACKUPS_WRONG_KEY',
    'DB_BACKUPS_NOT_SEALED'
  ].includes(String(code))
