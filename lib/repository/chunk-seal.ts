import type { LogicalDatabase } from '../../types/databases.js'
import { type Keys, NO_KEYS } from '../seal/keyring.js'
import { type Place, SEAL_BYTES, type SealingKey } from '../seal/sealing-key.js'
import type { ChunkBody } from './chunk-attempt.js'
import type { Codec } from './codec.js'
import type { ChunkEntry } from './layout.js'

/** The keys of chunks, and the database whose documents they hold. */
export interface ChunkSealing {
  database: LogicalDatabase
  keys: Keys
}

export const NOT_SEALED: ChunkSealing = { database: 'components', keys: NO_KEYS }

/** Says where a chunk belongs: its bytes open as no other chunk. */
export const placeOf = (id: string, database: LogicalDatabase): Place => [
  'chunk',
  database,
  id,
  Number(id.slice(id.lastIndexOf('_') + 1))
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
export const sealedBody = ({ open, length }: ChunkBody, key: SealingKey, place: Place): ChunkBody => ({
  open: () => key.seal(open(), place),
  length: length === undefined ? undefined : length + SEAL_BYTES
})

const placeOfLarge = (id: string, database: LogicalDatabase): Place => ['large', database, id]

export const sealLarge = (
  large: string,
  key: SealingKey,
  { id }: Pick<ChunkEntry, 'id'>,
  database: LogicalDatabase
): string => key.sealText(large, placeOfLarge(id, database))

/** @throws NotSealedError */
export const openLarge = (
  key: SealingKey,
  { id, large = '' }: ChunkEntry,
  database: LogicalDatabase
): string => key.openText(large, placeOfLarge(id, database))
