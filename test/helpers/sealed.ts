import { createHash } from 'node:crypto'
import type { Encryption } from '../../types/index.js'
import type { ChainDatabases } from './chain.js'

/** Returns a key, the same for the same id. */
export const keyOf = (id: string): Buffer => createHash('sha256').update(`key ${id}`).digest()

/** Makes the option `encryption` with these keys; the last is the current one. */
export function encryptionOf(...ids: string[]): Encryption {
  return {
    current: ids.at(-1)!,
    async key(id) {
      if (!ids.includes(id)) throw new Error(`there is no ${keyOf(id).toString('hex')}`)
      return keyOf(id)
    }
  }
}

interface StoredDocument {
  _id: string
  _rev: string
  type?: string
  _attachments?: Record<string, { content_type: string; data: string }>
}

/** Reads all documents of a database with the bytes of their attachments. */
export async function storedDocuments(on: ChainDatabases, database: string): Promise<StoredDocument[]> {
  const { rows } = await on.couch.use(database).list({ include_docs: true, attachments: true } as never)
  return rows.map(({ doc }) => doc as unknown as StoredDocument)
}

/** Returns all that lies in a database, attachments decoded, as one text of bytes. */
export async function rawText(on: ChainDatabases, database: string): Promise<string> {
  const documents = await storedDocuments(on, database)
  const attached = documents.flatMap(({ _attachments = {} }) =>
    Object.values(_attachments).map(({ data }) => Buffer.from(data, 'base64').toString('latin1'))
  )
  return [JSON.stringify(documents), ...attached].join('\n')
}
