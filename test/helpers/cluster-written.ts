import type { ClusterNode } from './cluster.js'
import { write } from './cluster-documents.js'

interface Written {
  _id: string
  _rev?: string
}

/** Writes documents into one database of a cluster, and remembers what a majority of the replicas has acknowledged. */
export class WrittenDocuments {
  readonly #database: string
  /** The last acknowledged revisions by id. */
  readonly revisions = new Map<string, string>()
  /** Ids whose deletion was acknowledged. */
  readonly deleted = new Set<string>()
  #count = 0

  constructor(database: string) {
    this.#database = database
  }

  added(count: number): Written[] {
    return Array.from({ length: count }, () => this.#document(`doc_${++this.#count}`))
  }

  /** Returns new versions of `count` documents, those that were written the longest ago. */
  updated(count: number): Written[] {
    return [...this.revisions].slice(0, count).map(([id, _rev]) => ({ ...this.#document(id), _rev }))
  }

  #document(_id: string) {
    return { _id, type: 'fabric-peer', version: ++this.#count, text: 'x'.repeat(500) }
  }

  /** Counts what was acknowledged and these documents do not show: those that are missing, or earlier, or not deleted. */
  missedIn(documents: readonly Written[]): { lost: number; stale: number; resurrected: number } {
    const found = new Map(documents.map(({ _id, _rev }) => [_id, _rev]))
    const { revisions, deleted } = this
    return {
      lost: [...revisions.keys()].filter((id) => !found.has(id)).length,
      stale: [...revisions].filter(([id, rev]) => found.has(id) && found.get(id) !== rev).length,
      resurrected: [...deleted].filter((id) => found.has(id)).length
    }
  }

  /** Writes documents, or deletes them, and returns how many writes were acknowledged. */
  async write(node: ClusterNode, docs: readonly (Written & { _deleted?: true })[]): Promise<number> {
    const taken = await write(node, this.#database, docs)
    for (const { _id, _deleted } of docs) {
      // a write that was not acknowledged may have happened or not
      this.revisions.delete(_id)
      this.deleted.delete(_id)
      const rev = taken.get(_id)
      if (rev === undefined) continue
      if (_deleted) this.deleted.add(_id)
      else this.revisions.set(_id, rev)
    }
    return taken.size
  }
}
