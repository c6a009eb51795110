import type { Test } from 'tap'
import type { CouchDatabase } from '../../lib/couch/database.js'
import { fingerprint } from '../../lib/ids/fingerprint.js'
import { ChunkPlaces } from '../../lib/repository/chunk-places.js'
import { ChunkWriter, type LineFacts } from '../../lib/repository/chunk-writer.js'
import { type Codec, gzip } from '../../lib/repository/codec.js'
import { CHUNK_BYTES } from '../../lib/repository/layout.js'
import type { LogicalDatabase } from '../../types/index.js'

interface Settings {
  codec?: Codec
  backup?: string
  database?: LogicalDatabase
}

/** Makes a writer of chunks that fails the test when a document is refused. */
export function chunkWriter(t: Test, db: CouchDatabase, settings: Settings = {}): ChunkWriter {
  const { codec = gzip, backup = '03_ibp_db_backup_1592924104038', database = 'components' } = settings
  return new ChunkWriter({
    db,
    codec,
    chunkBytes: CHUNK_BYTES,
    places: new ChunkPlaces({ db, backup, database, first: 0 }),
    onRefused: () => t.fail('nothing is refused')
  })
}

/** Returns what a backup knows of a document beside its line. */
export const factsOf = (id: string, facts: Partial<LineFacts> = {}): LineFacts => ({
  print: fingerprint(id),
  design: false,
  conflicted: false,
  ...facts
})
