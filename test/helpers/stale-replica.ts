/** A reply of the database. */
export interface Reply {
  status: number
  headers: Record<string, string | string[] | undefined>
  body: Buffer
}

interface Asked {
  method: string
  /** Path and query, decoded. */
  path: string
}

const JSON_TYPE = { 'content-type': 'application/json' }

/**
 * Plays a replica of the databases that has missed every write since the last {@link StaleReplica.catchUp}. It repeats the
 * replies of that time, and answers that documents without one are missing.
 */
export class StaleReplica {
  readonly #first = new Map<string, Reply>()
  readonly #missed = new Set<string>()

  catchUp(): void {
    this.#first.clear()
    this.#missed.clear()
  }

  /** Remembers which documents a request writes. */
  misses({ method, path }: Asked, body: Buffer): void {
    if (isBulk(path)) for (const id of bulkIds(body)) this.#missed.add(`${databaseOf(path)}/${id}`)
    else if (/PUT|DELETE/.test(method)) this.#missed.add(documentOf(path))
  }

  /** Keeps the first reply to a request. */
  keep({ method, path }: Asked, reply: Reply): void {
    const key = `${method} ${path}`
    if (!this.#first.has(key)) this.#first.set(key, reply)
  }

  /** Tells whether this replica would answer differently from the database. */
  isBehind({ method, path }: Asked): boolean {
    if (!/GET|HEAD/.test(method) || /open_revs=/.test(path)) return false
    if (!isList(path)) return this.#missed.has(documentOf(path))
    return [...this.#missed].some((missed) => missed.startsWith(`${databaseOf(path)}/`))
  }

  /**
   * Returns the reply of this replica.
   * @param now the reply of the database
   */
  tell(asked: Asked, now: Reply): Reply {
    const kept = this.#first.get(`${asked.method} ${asked.path}`)
    if (kept) return kept
    if (isList(asked.path)) return { ...now, body: this.#without(now.body, databaseOf(asked.path)) }
    return {
      status: 404,
      headers: JSON_TYPE,
      body: Buffer.from(asked.method === 'HEAD' ? '' : '{"error":"not_found","reason":"missing"}')
    }
  }

  #without(list: Buffer, database: string): Buffer {
    const { rows, ...rest } = JSON.parse(list.toString()) as { rows: { id: string }[] }
    return Buffer.from(
      JSON.stringify({ ...rest, rows: rows.filter(({ id }) => !this.#missed.has(`${database}/${id}`)) })
    )
  }
}

/** Tells whether a request writes many documents. */
export const isBulk = (path: string) => /\/_bulk_docs(\?|$)/.test(path)
const isList = (path: string) => /\/_all_docs(\?|$)/.test(path)
const databaseOf = (path: string) => path.split(/[/?]/)[1]
const documentOf = (path: string) => path.split(/[/?]/).slice(1, 3).join('/')

/** Returns the ids of the documents in a `_bulk_docs`. */
export function bulkIds(body: Buffer): string[] {
  const { docs } = JSON.parse(body.toString()) as { docs: { _id: string }[] }
  return docs.map(({ _id }) => _id)
}
