import type { DamagedBackup, DamagedParts, LastVerification } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { LOGICAL_DATABASES } from '../databases.js'
import { BackupChangedError, DamagedBackupError } from '../errors.js'
import { BACKUP_TYPE } from '../own-documents.js'
import { atATime } from '../waits/at-a-time.js'
import type { Finding } from './findings.js'
import { kindOfStorage } from './header-storage.js'
import { type ChunkEntry, contentDigest, type Head, type HeaderDocument, type Store } from './layout.js'
import { readManifest } from './manifests.js'
import { readHeader } from './read-header.js'
import { HEADERS_AT_A_TIME, headerRevisions } from './references.js'

/** Damaged parts that a header names of each database. */
const NAMED = 20
/** Backups that are named for a damaged part. */
const MOST_BACKUPS = 100

/** Damaged parts by id: whether it is only the index that is wrong. */
type DamagedIds = ReadonlyMap<string, { isIndex: boolean }>

/** The verified parts that one database of a backup lists. */
interface ListedFindings {
  damaged: Set<string>
  onlyIndex: boolean
  /** Parts that are whole, and were marked as damaged before. */
  healed: Set<string>
}

/** An entry of a part in a header or a manifest: the members that must be the same in all lists of the part. */
type ListedPart = { id: string } & Partial<Pick<ChunkEntry, 'rev' | 'docs' | 'raw' | 'stored' | 'sha256'>>

/** Returns what two entries of the same part have in common: one of the two may be wrong. */
const factsOf = ({ rev, docs, raw, stored, sha256 }: ListedPart): string =>
  [rev, docs, raw, stored, sha256].join(' ')

/** The outcome of a verification. */
export interface Verdict {
  id: string
  /** Digest of what the header told and listed when it was verified. */
  content: string
  /** The findings of each database. */
  findings: Partial<Record<LogicalDatabase, readonly Finding[]>>
  /** Absent when only a part was looked at. */
  verified?: LastVerification
  /** Whether every byte was read, so that what is not named is whole. */
  readAll: boolean
}

/**
 * Finds the backups that list damaged parts, and notes in their headers which. Headers are written by their
 * revisions, so this needs no lease; a header that has gone is left.
 */
export class DamageRecords {
  readonly #store: Store

  constructor(store: Store) {
    this.#store = store
  }

  /**
   * Records what was found of a backup, in its header and in those of all backups that share what is damaged.
   * @throws BackupChangedError where the header is not the one that was verified: it was sealed anew meanwhile
   * @returns ids of the backups that list each damaged part, at most 100 of them
   */
  async record({ id, content, findings, verified, readAll }: Verdict): Promise<Map<string, string[]>> {
    const damaged = new Map<string, { isIndex: boolean }>()
    for (const finding of Object.values(findings).flat()) {
      const isIndex = finding.part === 'index' && damaged.get(finding.id)?.isIndex !== false
      if (finding.part !== 'header') damaged.set(finding.id, { isIndex })
    }
    const backupsByPart = new Map<string, string[]>([...damaged.keys()].map((part) => [part, [id]]))
    const own = await readHeader(this.#store.db, id)
    if (own && digestOf(own) !== content) throw new BackupChangedError(id)
    if (own && (damaged.size > 0 || (readAll && own.damaged !== undefined)))
      await this.#recordInOthers(own, { damaged, readAll }, backupsByPart)
    await this.#change(id, content, (header) => {
      const found = Object.fromEntries(
        LOGICAL_DATABASES.flatMap((database) => {
          const all = findings[database] ?? []
          if (all.length === 0) return []
          const parts = new Set(all.map(({ id }) => id))
          const onlyIndex = all.every(({ part }) => part === 'index')
          return [[database, partsOf(parts, onlyIndex)]]
        })
      )
      const before = readAll ? {} : header.damaged?.databases
      return { ...this.#marked(header, { ...before, ...found }), ...(verified && { verified }) }
    })
    return backupsByPart
  }

  async #recordInOthers(
    own: Head,
    verdict: { damaged: DamagedIds; readAll: boolean },
    backupsByPart: Map<string, string[]>
  ): Promise<void> {
    const { db } = this.#store
    const known = new Map<string, string>()
    for (const database of LOGICAL_DATABASES)
      for await (const parts of this.#listedIn(own, database))
        for (const part of parts) known.set(part.id, factsOf(part))
    await atATime(HEADERS_AT_A_TIME, await headerRevisions(db), async ({ id }) => {
      if (id === own._id) return
      const head = await readHeader(db, id)
      if (kindOfStorage(head?.storage) !== 'known' || !head) return
      const lists = new Map<LogicalDatabase, ListedFindings>()
      for (const database of LOGICAL_DATABASES)
        lists.set(database, await this.#shared(head, database, known, verdict))
      for (const { damaged } of lists.values()) for (const part of damaged) addTo(backupsByPart, part, id)
      const concerns = [...lists.values()].some(({ damaged, healed }) => damaged.size + healed.size > 0)
      if (concerns) await this.#change(id, digestOf(head), (header) => this.#changed(header, lists))
    })
  }

  /** Finds the parts that a header lists as the verified one does. */
  async #shared(
    head: Head,
    database: LogicalDatabase,
    known: ReadonlyMap<string, string>,
    { damaged, readAll }: { damaged: DamagedIds; readAll: boolean }
  ): Promise<ListedFindings> {
    const marked = new Set(head.damaged?.databases[database]?.parts)
    const listed: ListedFindings = { damaged: new Set(), onlyIndex: true, healed: new Set() }
    for await (const parts of this.#listedIn(head, database)) {
      for (const part of parts) {
        // Where the entries differ, that of the verified backup may be what is wrong.
        if (known.get(part.id) !== factsOf(part)) continue
        const found = damaged.get(part.id)
        if (found) {
          listed.damaged.add(part.id)
          listed.onlyIndex &&= found.isIndex
        } else if (readAll && marked.has(part.id)) listed.healed.add(part.id)
      }
    }
    return listed
  }

  /** Yields what a header lists of a database. Manifests that cannot be read list nothing. */
  async *#listedIn({ storage }: Head, database: LogicalDatabase): AsyncGenerator<readonly ListedPart[]> {
    const stored = kindOfStorage(storage) === 'known' && storage?.databases[database]
    if (!stored) return
    const { manifests, chunks, superseded, index = [] } = stored
    yield manifests
    for (const manifest of manifests) {
      try {
        yield await readManifest(this.#store.db, manifest)
      } catch (error) {
        if (!(error instanceof DamagedBackupError)) throw error
      }
    }
    yield chunks
    yield superseded
    yield index
  }

  /** Returns a header with what it lists that is damaged, and without what is whole again; `null`: as it was. */
  #changed(
    header: HeaderDocument,
    lists: ReadonlyMap<LogicalDatabase, ListedFindings>
  ): HeaderDocument | null {
    const databases: DamagedBackup['databases'] = {}
    for (const [database, { damaged, onlyIndex, healed }] of lists) {
      const before = header.damaged?.databases[database]
      const parts = new Set([...(before?.parts ?? []).filter((id) => !healed.has(id)), ...damaged])
      // Parts that are not named cannot be known to be whole.
      const unnamed = before ? before.count - before.parts.length : 0
      if (parts.size + unnamed === 0) continue
      databases[database] = partsOf(parts, onlyIndex && (before?.only_index ?? true), unnamed)
    }
    const marked = this.#marked(header, databases)
    return JSON.stringify(marked.damaged) === JSON.stringify(header.damaged) ? null : marked
  }

  #marked({ damaged, ...header }: HeaderDocument, databases: DamagedBackup['databases']): HeaderDocument {
    if (Object.keys(databases).length === 0) return header
    return { ...header, damaged: { found: damaged?.found ?? this.#store.now(), databases } }
  }

  /** Changes a header, unless it has gone, tells or lists something else by now, or its backup still runs. */
  async #change(
    id: string,
    content: string,
    change: (header: HeaderDocument) => HeaderDocument | null
  ): Promise<void> {
    const { db, headerMutex } = this.#store
    await headerMutex.run(id, () =>
      db.modify<HeaderDocument>(id, (current) => {
        if (current?.type !== BACKUP_TYPE || current.in_progress || digestOf(current) !== content) return null
        const { _id, _rev, ...header } = current
        return change(header)
      })
    )
  }
}

const partsOf = (ids: ReadonlySet<string>, onlyIndex: boolean, unnamed = 0): DamagedParts => ({
  parts: [...ids].slice(0, NAMED),
  count: ids.size + unnamed,
  ...(onlyIndex && { only_index: true as const })
})

function addTo(backupsByPart: Map<string, string[]>, part: string, backup: string): void {
  const backups = backupsByPart.get(part)
  if (backups && backups.length < MOST_BACKUPS) backups.push(backup)
}

const digestOf = ({ dbs, storage }: Pick<Head, 'dbs' | 'storage'> | HeaderDocument): string =>
  contentDigest(dbs, storage?.databases ?? {})
