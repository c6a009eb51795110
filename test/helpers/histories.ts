import { createHash } from 'node:crypto'
import fc from 'fast-check'
import type { Test } from 'tap'
import type { LogicalDatabase } from '../../types/index.js'
import { type ChainDatabases, setupChain } from './chain.js'
import { DATABASES } from './database.js'
import { bytesOf } from './seed.js'
import { cases, wholeNumber } from './settings.js'

/** Attachments of a document above this number of bytes make it one that is never whole in memory. */
const LARGE = 4 * 1024 * 1024 + 1000

const ODD_IDS = [
  'a',
  'b',
  'c',
  'd',
  'doc 1/2?&=%2F+',
  '漢😀\u{10ffff}',
  'e\u0301',
  'é',
  '"quoted\\"',
  '\u0000\u001f\u2028',
  'hasOwnProperty',
  'constructor',
  '9007199254740993',
  `long ${'x'.repeat(700)}`,
  `long ${'漢'.repeat(700)}`,
  'settled 0',
  'settled 3',
  '_design/one',
  '_design/ü'
]
/** Ids that CouchDB refuses and other servers take. */
const LONE_SURROGATES = ['\ud800', '\udfff', 'x\udbff']
const TYPES = ['fabric-peer', 'fabric-peer', 'msp', 'kept_out_later', 'pillow_talk_doc']
/** The type that backups leave out in steps with `excludes`. */
export const KEPT_OUT_LATER = 'kept_out_later'

interface Body {
  type: string
  n: number
  /** Bytes of text that does not compress. */
  size: number
  /** Writes the id with escapes. */
  escaped: boolean
}

interface Attachment {
  name: string
  type: string
  size: number
}

/** A change of one database. Documents are chosen by an index in the ids. */
type Change =
  | { do: 'write'; ids: number[]; body: Body; keep: boolean }
  /** Writes many of the settled documents again. */
  | { do: 'sweep'; from: number; count: number; n: number }
  | { do: 'attach'; id: number; body: Body; attachments: Attachment[]; keep: boolean }
  | { do: 'remove'; ids: number[] }
  | { do: 'purge'; id: number; all: boolean }
  | { do: 'conflict'; id: number; body: Body; wins: boolean; deleted: boolean }
  | { do: 'resolve'; id: number; winner: boolean; all: boolean }
  | { do: 'remake'; ids: number[]; body: Body; writes: number }

/** The changes before a backup. */
export interface Step {
  changes: { database: LogicalDatabase; change: Change }[]
  /** The backup leaves out {@link KEPT_OUT_LATER} as well. */
  excludes: boolean
}

const index = fc.nat(ODD_IDS.length + LONE_SURROGATES.length - 1)
const indices = fc.uniqueArray(index, { minLength: 1, maxLength: 3 })
const body: fc.Arbitrary<Body> = fc.record({
  type: fc.constantFrom(...TYPES),
  n: fc.nat(1_000_000),
  size: fc.oneof(
    { weight: 40, arbitrary: fc.nat(2000) },
    { weight: 1, arbitrary: fc.integer({ min: 100_000, max: 900_000 }) }
  ),
  escaped: fc.boolean()
})
const attachment: fc.Arbitrary<Attachment> = fc.record({
  name: fc.constantFrom('one', 'two.txt', 'ü/漢', `long ${'n'.repeat(300)}`),
  type: fc.constantFrom('image/png', 'text/plain', 'application/json'),
  size: fc.oneof(
    { weight: 30, arbitrary: fc.nat(3000) },
    { weight: 1, arbitrary: fc.constant(LARGE) },
    { weight: 1, arbitrary: fc.constant(1_500_000) }
  )
})
const attachments = fc.uniqueArray(attachment, { maxLength: 3, selector: ({ name }) => name })
const change: fc.Arbitrary<Change> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ do: fc.constant('write'), ids: indices, body, keep: fc.boolean() } as const)
  },
  {
    weight: 14,
    arbitrary: fc.record({
      do: fc.constant('sweep'),
      from: fc.nat(29),
      count: fc.integer({ min: 2, max: 12 }),
      n: fc.nat(1_000_000)
    } as const)
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('attach'),
      id: index,
      body,
      attachments,
      keep: fc.boolean()
    } as const)
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('remove'), ids: indices } as const) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('purge'), id: index, all: fc.boolean() } as const) },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('conflict'),
      id: fc.oneof(index, fc.constantFrom(...['settled 0', 'settled 3'].map((id) => ODD_IDS.indexOf(id)))),
      body,
      wins: fc.boolean(),
      deleted: fc.boolean()
    } as const)
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('resolve'),
      id: index,
      winner: fc.boolean(),
      all: fc.boolean()
    } as const)
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('remake'),
      ids: fc.uniqueArray(index, { maxLength: 6 }),
      body,
      writes: fc.integer({ min: 1, max: 3 })
    } as const)
  }
)

/** Returns an arbitrary of histories: the steps of three databases. */
export const histories = (maxLength: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.record({
      changes: fc.array(fc.record({ database: fc.constantFrom(...DATABASES), change }), { maxLength: 4 }),
      excludes: fc.oneof(
        { weight: 24, arbitrary: fc.constant(false) },
        { weight: 1, arbitrary: fc.constant(true) }
      )
    }),
    { minLength: 3, maxLength, size: 'max' }
  )

/**
 * Returns how a property of histories is tried. `HISTORY_STEPS` tells how many steps they have, `HISTORY_SEED` which they
 * are, and with `HISTORY_SHRINK` a failing one is made shorter.
 */
export function historyRuns(byDefault: number) {
  const numRuns = cases(1)
  const steps = wholeNumber('HISTORY_STEPS', byDefault)
  const { HISTORY_SEED: seed, HISTORY_SHRINK: shrink } = process.env
  return {
    steps,
    timeout: 120_000 + numRuns * steps * 10_000,
    parameters: {
      numRuns,
      endOnFailure: shrink === undefined,
      ...(seed !== undefined && { seed: Number(seed) })
    }
  }
}

/** Sets up databases with the documents that are there before a history begins. */
export async function setupSettled(t: Test): Promise<ChainDatabases> {
  const on = await setupChain(t)
  await on.write(on.names.components, settled(60))
  for (const name of [on.names.sessions, on.names.system]) await on.write(name, settled(30))
  return on
}

const settled = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => {
    const text = bytesOf(`settled ${i}`, 600).toString('base64')
    return `{"_id":"settled ${i}","type":"fabric-peer","n":1.0,"text":"${text}"}`
  })

/** Makes the changes of a step. */
export async function applyStep(on: ChainDatabases, { changes }: Step): Promise<void> {
  for (const { database, change } of changes) await new Changer(on, on.names[database]).apply(change)
}

/** Makes changes of one database, as a client does. */
class Changer {
  readonly #on: ChainDatabases
  readonly #db: string

  constructor(on: ChainDatabases, db: string) {
    this.#on = on
    this.#db = db
  }

  async apply(change: Change): Promise<void> {
    switch (change.do) {
      case 'write':
        return this.#write(this.#ids(change.ids).map((id) => ({ ...change, id })))
      case 'sweep': {
        const ids = Array.from({ length: change.count }, (_, i) => `settled ${(change.from + i) % 30}`)
        const body = { type: 'fabric-peer', n: change.n, size: 600, escaped: false }
        return this.#write(ids.map((id) => ({ id, body, keep: false })))
      }
      case 'attach':
        return this.#write([{ ...change, id: this.#id(change.id) }])
      case 'remove':
        for (const id of this.#ids(change.ids)) await this.#removeLeaves((await this.#leaves(id)).slice(0, 1))
        return
      case 'purge':
        return this.#purge(this.#id(change.id), change.all)
      case 'conflict':
        return this.#conflict(this.#id(change.id), change)
      case 'resolve':
        return this.#resolve(this.#id(change.id), change)
      case 'remake':
        await this.#on.remake(this.#db)
        for (let i = 0; i < change.writes && change.ids.length > 0; i++) {
          const { n } = change.body
          const body = { ...change.body, n: n + i }
          await this.#write(this.#ids(change.ids).map((id) => ({ id, body, keep: false })))
        }
    }
  }

  /** Returns each id once: two indices may stand for one id, as some servers have fewer. */
  #ids = (indices: readonly number[]): string[] => [...new Set(indices.map((index) => this.#id(index)))]

  #id(index: number): string {
    const ids = this.#on.raw ? [...ODD_IDS, ...LONE_SURROGATES] : ODD_IDS
    return ids[index % ids.length]!
  }

  async #write(
    written: { id: string; body: Body; keep: boolean; attachments?: Attachment[] }[]
  ): Promise<void> {
    const documents: string[] = []
    for (const { id, body, keep, attachments = [] } of written) {
      const [winner] = await this.#leaves(id)
      const rev = winner && !winner.deleted ? winner.rev : undefined
      const kept = rev && keep ? await this.#stubs(id, rev) : {}
      const added = attachments.map(({ name, type, size }) => {
        const data = bytesOf(`${id} ${name} ${body.n}`, size).toString('base64')
        return [name, { content_type: type, data }]
      })
      const _attachments = { ...kept, ...Object.fromEntries(added) }
      documents.push(documentOf(id, body, { _rev: rev, _attachments }))
    }
    accepted(await this.#on.write(this.#db, documents))
  }

  /** Returns the leaves of a document, the winner first. */
  async #leaves(id: string): Promise<{ id: string; rev: string; deleted: boolean }[]> {
    const path = `${this.#db}/_changes?style=all_docs&filter=_doc_ids`
    const { results } = await this.#on.call('POST', path, { doc_ids: [id] })
    const row = results.find((result: { id: string }) => result.id === id)
    if (!row) return []
    const revs: string[] = row.changes.map(({ rev }: { rev: string }) => rev)
    const { results: read } = await this.#on.call('POST', `${this.#db}/_bulk_get`, {
      docs: revs.map((rev) => ({ id, rev }))
    })
    return revs.map((rev) => ({ id, rev, deleted: docIn(read, rev)?._deleted === true }))
  }

  async #stubs(id: string, rev: string): Promise<Record<string, object>> {
    const { results } = await this.#on.call('POST', `${this.#db}/_bulk_get`, { docs: [{ id, rev }] })
    return docIn(results, rev)?._attachments ?? {}
  }

  async #removeLeaves(leaves: { id: string; rev: string; deleted: boolean }[]): Promise<void> {
    const live = leaves.filter(({ deleted }) => !deleted)
    const docs = live.map(({ id, rev }) => ({ _id: id, _rev: rev, _deleted: true }))
    if (docs.length > 0) accepted(await this.#on.write(this.#db, docs))
  }

  async #purge(id: string, all: boolean): Promise<void> {
    const leaves = await this.#leaves(id)
    const revs = leaves.slice(0, all ? undefined : 1).map(({ rev }) => rev)
    if (revs.length === 0) return
    const { purged } = await this.#on.call('POST', `${this.#db}/_purge`, { [id]: revs })
    if (!purged) throw new Error('nothing was purged')
  }

  /** Adds a leaf beside the winner, with the same parent. */
  async #conflict(id: string, { body, wins, deleted }: { body: Body; wins: boolean; deleted: boolean }) {
    let [winner] = await this.#leaves(id)
    if (!winner || winner.deleted) {
      await this.#write([{ id, body, keep: false }])
      winner = (await this.#leaves(id))[0]!
    }
    const { rev } = winner
    const { results } = await this.#on.call('POST', `${this.#db}/_bulk_get?revs=true`, {
      docs: [{ id, rev }]
    })
    const { start, ids } = docIn(results, rev)._revisions
    const hash = createHash('md5').update(JSON.stringify(body)).digest('hex').slice(1)
    const own = (wins ? 'f' : '0') + hash
    const _revisions = { start, ids: [own, ...ids.slice(1)] }
    const more = { _rev: `${start}-${own}`, _revisions, ...(deleted && { _deleted: true }) }
    accepted(await this.#on.write(this.#db, [documentOf(id, body, more)], false))
  }

  async #resolve(id: string, { winner, all }: { winner: boolean; all: boolean }): Promise<void> {
    const live = (await this.#leaves(id)).filter(({ deleted }) => !deleted)
    if (live.length < 2) return
    const chosen = winner ? live : live.slice(1)
    await this.#removeLeaves(chosen.slice(0, all ? undefined : 1))
  }
}

/** Returns a document as JSON, with numbers and escapes that a parser does not give back. */
function documentOf(
  id: string,
  body: Body,
  members: Record<string, unknown> & { _attachments?: object }
): string {
  const { _attachments = {}, ...others } = members
  const escaped = [...Array(id.length).keys()]
    .map((i) => `\\u${id.charCodeAt(i).toString(16).padStart(4, '0')}`)
    .join('')
  const head = JSON.stringify({ ...others, ...(Object.keys(_attachments).length > 0 && { _attachments }) })
  const text = bytesOf(`${id} ${body.n}`, Math.ceil(body.size * 0.75)).toString('base64')
  const own = id.startsWith('_design/')
    ? `"language":"javascript","n":${body.n}`
    : `"type":"${body.type}","n":${body.n}.0,"big":9007199254740993,"text":"${text}"`
  return `{"_id":${body.escaped ? `"${escaped}"` : JSON.stringify(id)},${own}${head === '{}' ? '}' : `,${head.slice(1)}`}`
}

// biome-ignore lint/suspicious/noExplicitAny: what the server says
function docIn(results: any[], rev: string): any {
  for (const { docs } of results) for (const { ok } of docs) if (ok?._rev === rev) return ok
  return undefined
}

function accepted(results: { error?: string }[]): void {
  if (!Array.isArray(results) || results.some(({ error }) => error)) throw new Error(JSON.stringify(results))
}
