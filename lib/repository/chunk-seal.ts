import type { LogicalDatabase } from '../../types/databases.js'
import type { StreamedBody } from '../couch/requests.js'
import type { Keys } from '../seal/keyring.js'
import { SEAL_BYTES, type SealContext, type SealingKey } from '../seal/sealing-key.js'
import type { Codec } from './codec.js'
import { numberOf } from './ids.js'
import type { ChunkEntry } from './layout.js'

/** Seals the chunks of one database. */
export interface ChunkSeal {
  key: SealingKey
  database: LogicalDatabase
}

/** The keys of chunks, and the database whose documents they hold. */
export interface ChunkSealing {
  database: LogicalDatabase
  keys: Keys
}

/** Says where a chunk belongs: its bytes open as no other chunk. */
export const contextOf = (id: string, database: LogicalDatabase): SealContext => [
  'chunk',
  database,
  id,
  numberOf(id)
]

/** Returns how the attachment of a sealed chunk is named. CouchDB does not compress such a type. */
export const sealedAttachment = (name: string): Codec['attachment'] => ({
  name: `${name}.sealed`,
  contentType: 'application/octet-stream'
})

/** Returns how the attachment of a chunk is named that its entry tells to be sealed, or not. */
export const attachmentOf = (attachment: Codec['attachment'], { sealed }: ChunkEntry): Codec['attachment'] =>
  sealed === undefined ? attachment : sealedAttachment(attachment.name)

/** Seals what a chunk of this id is to hold. */
export const sealedBody = (
  { open, length }: StreamedBody,
  key: SealingKey,
  context: SealContext
): StreamedBody => ({
  open: () => key.seal(open(), context),
  length: length === undefined ? undefined : length + SEAL_BYTES
})

const contextOfLarge = (id: string, database: LogicalDatabase): SealContext => ['large', database, id]

export const sealLarge = (
  large: string,
  key: SealingKey,
  { id }: Pick<ChunkEntry, 'id'>,
  database: LogicalDatabase
): string => key.sealText(large, contextOfLarge(id, database))

/** @throws NotSealedError */
export const openLarge = (
  key: SealingKey,
  { id, large = '' }: ChunkEntry,
  database: LogicalDatabase
): string => key.openText(large, contextOfLarge(id, database))
