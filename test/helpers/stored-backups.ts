import { createHash } from 'node:crypto'
import type { StoredHeader } from '../../lib/repository/layout.js'
import type { LogicalDatabase } from '../../types/index.js'
import { LEASE, type TestDatabases } from './database.js'

const CHUNKS = { startkey: 'backup_', endkey: 'backup_\ufff0' }

const stampOf = (id: string) => id.slice('03_ibp_db_backup_'.length)

/** Reads the documents of backups where they lie, and changes them by hand. */
export class StoredBackupsOf {
  readonly #on: TestDatabases
  readonly #name: string

  constructor(on: TestDatabases, name = on.names.system) {
    this.#on = on
    this.#name = name
  }

  get db() {
    return this.#on.couch.use<Record<string, unknown>>(this.#name)
  }

  header(id: string): Promise<StoredHeader> {
    return this.db.get(id) as unknown as Promise<StoredHeader>
  }

  /** Changes a header. */
  async change(id: string, change: (header: StoredHeader) => void): Promise<void> {
    const header = await this.header(id)
    change(header)
    await this.db.insert(header as never)
  }

  /** Returns the ids of the chunks and manifests of one backup, or of all. */
  async parts(id?: string): Promise<string[]> {
    const { rows } = await this.db.list(CHUNKS)
    return rows.map((row) => row.id).filter((part) => id === undefined || part.includes(`_${stampOf(id)}_`))
  }

  /** Returns the ids of the headers of removed backups. */
  marked(): Promise<string[]> {
    return this.#headers('athena_backup_removed')
  }

  async #headers(type: string): Promise<string[]> {
    const range = { startkey: '03_ibp_db_backup_', endkey: '03_ibp_db_backup_:', include_docs: true }
    const { rows } = await this.db.list(range)
    return rows.filter(({ doc }) => (doc as { type?: string } | undefined)?.type === type).map(({ id }) => id)
  }

  /** Returns the ids of all parts that headers list, by their manifests too. */
  async listed(ids: readonly string[]): Promise<string[]> {
    const listed: string[] = []
    for (const id of ids) {
      const { storage } = await this.header(id)
      for (const { manifests, chunks, superseded, index = [] } of Object.values(storage?.databases ?? {})) {
        for (const part of [...manifests, ...chunks, ...superseded, ...index]) listed.push(part.id)
        for (const { id: manifest } of manifests)
          for (const part of JSON.parse(String((await this.db.get(manifest)).entries))) listed.push(part.id)
      }
    }
    return [...new Set(listed)].sort()
  }

  /** Has a backup list the chunks of another for one database, whose documents are the same, in place of its own. */
  async shareDatabase(id: string, base: string, database: LogicalDatabase): Promise<void> {
    const { storage } = await this.header(base)
    await this.change(id, (header) => {
      header.storage.databases[database] = storage.databases[database]
    })
    for (const part of await this.parts(id)) if (part.includes(`_${database}_`)) await this.delete(part)
  }

  /** Has a backup list the chunks of another in place of its own, and deletes its own. */
  async share(id: string, base: string): Promise<void> {
    const { dbs, doc_count, storage } = await this.header(base)
    await this.change(id, (header) => {
      Object.assign(header, { dbs, doc_count })
      header.storage.databases = storage.databases
    })
    for (const part of await this.parts(id)) await this.delete(part)
  }

  /** Returns the ids of all backups. */
  async backups(): Promise<string[]> {
    return (await this.#headers('athena_backup')).sort()
  }

  /** Returns the ids of the backups that have not failed. */
  async good(): Promise<string[]> {
    const ids = await this.backups()
    const headers = await Promise.all(ids.map((id) => this.header(id)))
    return headers.filter(({ error }) => error === undefined).map(({ _id }) => _id)
  }

  /** Writes a later backup that lists the chunks of another, and returns its id. */
  async clone(base: string): Promise<string> {
    const newest = (await this.backups()).at(-1) ?? base
    const id = `03_ibp_db_backup_${BigInt(stampOf(newest)) + 1n}`
    const start_timestamp = Date.now()
    await this.db.insert({ ...(await this.header(base)), _id: id, _rev: undefined, start_timestamp } as never)
    return id
  }

  /**
   * Tells what is wrong with what is stored: parts that no backup lists, or that are listed and missing, and headers of
   * removed backups without parts. Empty when nothing is.
   */
  async flaws(): Promise<string[]> {
    const [listed, parts] = [await this.listed(await this.backups()), await this.parts()]
    const used = (marked: string) => parts.some((part) => part.includes(`_${stampOf(marked)}_`))
    return [
      ...parts.filter((part) => !listed.includes(part)).map((part) => `${part} is not listed`),
      ...listed.filter((part) => !parts.includes(part)).map((part) => `${part} is missing`),
      ...(await this.marked()).filter((id) => !used(id)).map((id) => `${id} has no parts`)
    ]
  }

  /** Moves a backup's chunks of the components into a manifest. @returns its id */
  async moveToManifest(id: string): Promise<string> {
    const manifest = `backup_manifest_${stampOf(id)}_components_000000`
    const { storage } = await this.header(id)
    const stored = storage.databases.components!
    if (stored.chunks.length === 0) return manifest
    const entries = JSON.stringify(stored.chunks)
    await this.db.insert({
      _id: manifest,
      type: 'athena_backup_manifest',
      backup_id: id,
      database: 'components',
      entries
    } as never)
    const sha256 = createHash('sha256').update(entries).digest('hex')
    await this.change(id, (header) => {
      header.storage.databases.components = {
        ...stored,
        manifests: [...stored.manifests, { id: manifest, chunks: stored.chunks.length, sha256 }],
        chunks: []
      }
    })
    return manifest
  }

  /** Marks backups as removed, as an instance does before it deletes their chunks. */
  async markRemoved(ids: readonly string[]): Promise<void> {
    for (const id of ids) {
      const { _rev } = await this.db.get(id)
      await this.db.insert({
        _id: id,
        _rev,
        type: 'athena_backup_removed',
        storage: { layout: 2, system: this.#on.names.system },
        reasons: ['no rule keeps it']
      } as never)
    }
  }

  /** Marks backups as removed, and leaves the lease to an instance that has died before it deleted their chunks. */
  async leaveRemoval(ids: readonly string[]): Promise<void> {
    await this.markRemoved(ids)
    const holder = {
      operation: 'prune',
      id: 'prune_1',
      instance: 'dead',
      claim: 'dead',
      beat: 1,
      settled: true
    }
    const before = await this.db.get(LEASE).catch(() => undefined)
    const rev = before && { _rev: before._rev }
    await this.db.insert({ _id: LEASE, ...rev, type: LEASE, ...holder, ttl: 1000 } as never)
  }

  /** Deletes a document. */
  async delete(id: string): Promise<void> {
    await this.db.destroy(id, (await this.db.get(id))._rev)
  }
}

/** A backup that was not made by the plugin. */
export interface Fabricated {
  /** When it began, in milliseconds since the epoch. */
  at: number
  /** Number of chunks that it has made, each of 100 bytes. Default 1. */
  chunks?: number
  /** Ids of chunks of others that it lists as well. */
  shared?: readonly string[]
  /** Further members of the header. */
  header?: object
}

/** Writes the documents of backups as a console with this system database would have made them, and returns their ids. */
export async function fabricate(
  { couch, names }: TestDatabases,
  backups: Iterable<Fabricated>,
  system = names.system
): Promise<string[]> {
  const ids: string[] = []
  let docs: object[] = []
  const flush = async () => {
    const results = await couch.use(names.system).bulk({ docs })
    const failed = results.find(({ error }) => error)
    if (failed) throw new Error(JSON.stringify(failed))
    docs = []
  }
  const entryOf = (id: string) => ({ id, rev: '1-a', docs: 1, design: 0, raw: 100, stored: 100, sha256: '' })
  const attachment = { content_type: 'application/gzip', data: Buffer.alloc(100).toString('base64') }
  for (const { at, chunks = 1, shared = [], header } of backups) {
    const made = Array.from(
      { length: chunks },
      (_, i) => `backup_chunk_${at}_components_${String(i).padStart(6, '0')}`
    )
    for (const [index, _id] of made.entries()) {
      const chunk = { type: 'athena_backup_chunk', backup_id: _id, database: 'components', index }
      docs.push({ _id, ...chunk, _attachments: { 'documents.ndjson.gz': attachment } })
    }
    const stored = { manifests: [], chunks: [...shared, ...made].map(entryOf), superseded: [] }
    const told = { type: 'athena_backup', doc_count: 0, dbs: {}, in_progress: false, start_timestamp: at }
    const storage = { layout: 2, instance: 'fabricated', system, databases: { components: stored } }
    const id = `03_ibp_db_backup_${at}`
    docs.push({ _id: id, ...told, storage, ...header })
    ids.push(id)
    if (docs.length > 1000) await flush()
  }
  await flush()
  return ids
}
