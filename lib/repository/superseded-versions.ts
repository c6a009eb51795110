import { DamagedBackupError } from '../errors.js'
import { fingerprint } from '../ids/fingerprint.js'
import { LastVersions } from '../ids/version-index.js'
import { type ChunkContent, lineGroups } from './chunk-contents.js'
import type { ChunkReader } from './chunk-reader.js'
import type { ChunkEntry } from './layout.js'

/** Knows, in layout 2, which versions count of documents that changed during the backup. Empty in other layouts. */
export class SupersededVersions extends LastVersions {
  /** Reads a chunk that the header lists as superseded. @throws DamagedBackupError, CouchError */
  async read(reader: ChunkReader, chunk: ChunkEntry): Promise<void> {
    for await (const lines of lineGroups(await reader.lines(chunk))) {
      for (const line of lines) {
        const [key, ordinal] = versionIn(line, chunk)
        this.put(fingerprint(key), ordinal)
      }
    }
  }

  /** Returns whether the document of a large chunk is its last version. */
  isLastLarge({ entry, ordinal }: ChunkContent): boolean {
    return this.isLast(fingerprint(entry.large ?? ''), ordinal)
  }
}

function versionIn(line: Buffer, { id }: ChunkEntry): [key: string, ordinal: number] {
  try {
    const [key, ordinal] = JSON.parse(line.toString())
    return [key, ordinal]
  } catch {
    throw new DamagedBackupError('chunk', id, 'does not hold lines of superseded documents')
  }
}
