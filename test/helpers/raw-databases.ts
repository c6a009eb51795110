import { createHash, randomBytes } from 'node:crypto'
import nano from 'nano'
import type { Test } from 'tap'
import type { DatabaseNames } from '../../types/index.js'
import { DATABASES, LEASE, type TestDatabases } from './database.js'
import { type Creation, type RawCouch, startRawCouch } from './raw-couch.js'

export interface RawDatabases extends TestDatabases {
  raw: RawCouch
  names: Required<DatabaseNames>
  /** Returns another set of names on the same server. Creates nothing. */
  other(): Required<DatabaseNames>
  create(names: Required<DatabaseNames>): Promise<void>
  /** Writes documents given as JSON. `newEdits: false` keeps the revisions that they name. */
  write(database: string, documents: readonly (string | Buffer)[], newEdits?: boolean): Promise<void>
  content(database: string, options?: { rev?: boolean }): RawContent
}

/** The bytes of everything in a database that a restore can keep. */
type RawContent = Record<string, { rev?: string; rawId: string; body: string; attachments: object[] }>

/** Creates empty databases on a server that keeps bytes, among them a backups database. */
export async function setupRawDatabases(t: Test, creation: Creation = {}): Promise<RawDatabases> {
  const raw = await startRawCouch(creation)
  t.teardown(() => raw.close())
  const other = () => {
    const prefix = `t${randomBytes(4).toString('hex')}_`
    const entries = [...DATABASES, 'backups'].map((name) => [name, prefix + name])
    return Object.fromEntries(entries) as Required<DatabaseNames>
  }
  const create = async (names: Required<DatabaseNames>) => {
    for (const name of Object.values(names)) await fetch(`${raw.url}/${name}`, { method: 'PUT' })
  }
  const names = other()
  await create(names)
  return {
    raw,
    couch: nano(raw.url),
    url: raw.url,
    names,
    real: false,
    other,
    create,
    fetchAll: () => Promise.reject(new Error('use content() instead')),
    async write(database, documents, newEdits = true) {
      const pieces = documents.flatMap((document, i) => [i > 0 ? ',' : '', document])
      const body = [`{"new_edits":${newEdits},"docs":[`, ...pieces, ']}']
      const response = await fetch(`${raw.url}/${database}/_bulk_docs`, {
        method: 'POST',
        body: Buffer.concat(body.map((piece) => Buffer.from(piece as string))),
        headers: { 'content-type': 'application/json' }
      })
      const results = (await response.json()) as { error?: string }[]
      if (!response.ok || results.some(({ error }) => error)) throw new Error(JSON.stringify(results))
    },
    content(database, { rev = true } = {}) {
      const found: RawContent = {}
      for (const [id, { rawId, leaves }] of raw.store.get(database)?.docs ?? []) {
        const leaf = leaves[0]!
        // every operation writes the lease into the system database
        if (leaf.deleted || id === LEASE) continue
        found[id] = {
          ...(rev ? { rev: leaf.rev } : {}),
          rawId: rawId.toString(),
          body: leaf.body.toString(),
          attachments: [...leaf.attachments].map(([name, { contentType, data }]) => ({
            name,
            contentType,
            length: data.length,
            sha256: createHash('sha256').update(data).digest('hex')
          }))
        }
      }
      return found
    }
  }
}
