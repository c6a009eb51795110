import { createHash } from 'node:crypto'
import type { StoredHeader } from '../../lib/repository/layout.js'
import type { TestDatabases } from './database.js'

const CHUNKS = { startkey: 'backup_', endkey: 'backup_\ufff0' }

const stampOf = (id: string) => id.slice('03_ibp_db_backup_'.length)

/** Looks at backups where they lie, and changes them by hand. */
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
  async marked(): Promise<string[]> {
    const range = { startkey: '03_ibp_db_backup_', endkey: '03_ibp_db_backup_:', include_docs: true }
    const { rows } = await this.db.list(range)
    return rows
      .filter(({ doc }) => (doc as { type?: string } | undefined)?.type === 'athena_backup_removed')
      .map(({ id }) => id)
  }

  /** Returns the ids of all parts that headers list, without manifests' entries. */
  async listed(ids: readonly string[]): Promise<string[]> {
    const listed: string[] = []
    for (const id of ids) {
      const { storage } = await this.header(id)
      for (const stored of Object.values(storage?.databases ?? {}))
        for (const list of [stored.manifests, stored.chunks, stored.superseded])
          for (const part of list) listed.push(part.id)
    }
    return [...new Set(listed)].sort()
  }

  /** Has a backup list the chunks of another in place of its own, and deletes its own. */
  async share(id: string, base: string): Promise<void> {
    const { dbs, doc_count, storage } = await this.header(base)
    await this.change(id, (header) => {
      Object.assign(header, { dbs, doc_count })
      header.storage.databases = storage.databases
    })
    for (const part of await this.parts(id)) {
      const { _rev } = await this.db.get(part)
      await this.db.destroy(part, _rev)
    }
  }

  /** Moves a backup's chunks of the components into a manifest. @returns its id */
  async moveToManifest(id: string): Promise<string> {
    const manifest = `backup_manifest_${stampOf(id)}_components_000000`
    const { storage } = await this.header(id)
    const stored = storage.databases.components!
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
        manifests: [{ id: manifest, chunks: stored.chunks.length, sha256 }],
        chunks: []
      }
    })
    return manifest
  }

  /** Deletes a document. */
  async delete(id: string): Promise<void> {
    await this.db.destroy(id, (await this.db.get(id))._rev)
  }
}

/** What a backup is like that was not made by the plugin. */
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
