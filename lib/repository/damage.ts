import type { DamagedBackup, DamagedParts, LastVerification } from '../../types/backups.js'
import type { LogicalDatabase } from '../../types/databases.js'
import { LOGICAL_DATABASES } from '../databases.js'
import { DamagedBackupError } from '../errors.js'
import { BACKUP_TYPE } from '../own-documents.js'
import type { Finding } from './findings.js'
import { type HeaderDocument, LAYOUT, type Store, type StoredDatabase } from './layout.js'
import type { Head } from './loaded-backup.js'
import { readManifest } from './manifests.js'
import { readHeader } from './read-header.js'
import { atATime, HEADERS_AT_A_TIME, headerRevisions } from './references.js'

/** Parts that a header names of each database. */
const NAMED = 20
/** Backups that are told to share a part. */
const MOST_BACKUPS = 100

/** Damaged parts by id: whether it is only the index that is wrong. */
export type DamagedIds = ReadonlyMap<string, { isIndex: boolean }>

/** Damaged parts that one database of a backup lists, or parts that are whole again. */
interface Listed {
  damaged: Set<string>
  onlyIndex: boolean
}

/** What became of a verification. */
export interface Verdict {
  id: string
  /** What was found of each database. */
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
   * @returns ids of the backups that list each damaged part, at most 100 of them
   */
  async record({ id, findings, verified, readAll }: Verdict): Promise<Map<string, string[]>> {
    const damaged = new Map<string, { isIndex: boolean }>()
    for (const finding of Object.values(findings).flat()) {
      const isIndex = finding.part === 'index' && damaged.get(finding.id)?.isIndex !== false
      if (finding.part !== 'header') damaged.set(finding.id, { isIndex })
    }
    const own = await readHeader(this.#store.db, id)
    const sharing = new Map<string, string[]>([...damaged.keys()].map((part) => [part, [id]]))
    const looksAtAll = damaged.size > 0 || (readAll && own?.damaged !== undefined)
    if (looksAtAll) await this.#recordInOthers(id, damaged, readAll ? own : null, sharing)
    await this.#change(id, (header) => {
      const found = Object.fromEntries(
        LOGICAL_DATABASES.flatMap((database) => {
          const all = findings[database] ?? []
          if (all.length === 0) return []
          return [
            [
              database,
              partsOf(
                new Set(all.map(({ id }) => id)),
                all.every(({ part }) => part === 'index')
              )
            ]
          ]
        })
      )
      const before = readAll ? {} : header.damaged?.databases
      return { ...this.#marked(header, { ...before, ...found }), ...(verified && { verified }) }
    })
    return sharing
  }

  async #recordInOthers(
    verified: string,
    damaged: DamagedIds,
    whole: Head | null,
    sharing: Map<string, string[]>
  ): Promise<void> {
    const { db } = this.#store
    const named = new Set<string>()
    const found = new Map<string, Partial<Record<LogicalDatabase, Listed>>>()
    await atATime(HEADERS_AT_A_TIME, await headerRevisions(db), async ({ id }) => {
      if (id === verified) return
      const head = await readHeader(db, id)
      if (!head?.storage || !(head.storage.layout <= LAYOUT)) return
      for (const { parts } of Object.values(head.damaged?.databases ?? {}))
        for (const part of parts) named.add(part)
      const lists = await listedIn(this.#store, head, damaged)
      for (const { damaged: parts } of Object.values(lists))
        for (const part of parts) addTo(sharing, part, id)
      if (Object.keys(lists).length > 0 || head.damaged) found.set(id, lists)
    })
    // What the verified backup lists, and is not damaged, is whole.
    const healed = whole ? await this.#wholeIn(whole, named, damaged) : new Set<string>()
    for (const [id, lists] of found) await this.#change(id, (header) => this.#changed(header, lists, healed))
  }

  async #wholeIn(head: Head, named: ReadonlySet<string>, damaged: DamagedIds): Promise<Set<string>> {
    const asked = new Map([...named].filter((id) => !damaged.has(id)).map((id) => [id, { isIndex: false }]))
    const lists = await listedIn(this.#store, head, asked)
    return new Set(Object.values(lists).flatMap(({ damaged }) => [...damaged]))
  }

  /** Returns a header with what it lists that is damaged, and without what is whole again; `null`: as it was. */
  #changed(
    header: HeaderDocument,
    lists: Partial<Record<LogicalDatabase, Listed>>,
    healed: ReadonlySet<string>
  ): HeaderDocument | null {
    const databases: DamagedBackup['databases'] = {}
    for (const database of LOGICAL_DATABASES) {
      const before = header.damaged?.databases[database]
      const listed = lists[database]
      const parts = new Set([
        ...(before?.parts ?? []).filter((id) => !healed.has(id)),
        ...(listed?.damaged ?? [])
      ])
      // Parts that are not named cannot be known to be whole.
      const unnamed = before ? before.count - before.parts.length : 0
      if (parts.size + unnamed === 0) continue
      const onlyIndex = (before?.only_index ?? true) && (listed?.onlyIndex ?? true)
      databases[database] = partsOf(parts, onlyIndex, unnamed)
    }
    const marked = this.#marked(header, databases)
    return JSON.stringify(marked.damaged) === JSON.stringify(header.damaged) ? null : marked
  }

  #marked({ damaged, ...header }: HeaderDocument, databases: DamagedBackup['databases']): HeaderDocument {
    if (Object.keys(databases).length === 0) return header
    return { ...header, damaged: { found: damaged?.found ?? this.#store.now(), databases } }
  }

  /** Changes a header, unless it has gone or its backup still runs. */
  async #change(id: string, change: (header: HeaderDocument) => HeaderDocument | null): Promise<void> {
    const { db, turns } = this.#store
    await turns.take(id, () =>
      db.modify<HeaderDocument>(id, (current) => {
        if (current?.type !== BACKUP_TYPE || current.in_progress) return null
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

function addTo(sharing: Map<string, string[]>, part: string, backup: string): void {
  const backups = sharing.get(part)
  if (backups && backups.length < MOST_BACKUPS) backups.push(backup)
}

/** Finds those parts among what a header lists, by database. Manifests that cannot be read list nothing. */
async function listedIn(
  { db }: Store,
  head: Head,
  asked: DamagedIds
): Promise<Partial<Record<LogicalDatabase, Listed>>> {
  const lists: Partial<Record<LogicalDatabase, Listed>> = {}
  for (const database of LOGICAL_DATABASES) {
    const stored = head.storage?.databases?.[database]
    if (!stored) continue
    const damaged = new Set<string>()
    for await (const parts of partsIn(stored, async (manifest) => {
      try {
        return await readManifest(db, manifest)
      } catch (error) {
        if (error instanceof DamagedBackupError) return []
        throw error
      }
    }))
      for (const { id } of parts) if (asked.has(id)) damaged.add(id)
    if (damaged.size === 0) continue
    lists[database] = { damaged, onlyIndex: [...damaged].every((id) => asked.get(id)?.isIndex) }
  }
  return lists
}

async function* partsIn(
  { manifests, chunks, superseded, index = [] }: StoredDatabase,
  read: (manifest: StoredDatabase['manifests'][number]) => Promise<readonly { id: string }[]>
): AsyncGenerator<readonly { id: string }[]> {
  yield manifests
  for (const manifest of manifests) yield await read(manifest)
  yield chunks
  yield superseded
  yield index
}
