import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { Repository } from '../lib/repository/repository.js'
import type { DbBackups } from '../types/index.js'
import { clientOf } from './helpers/couch-client.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { load, seedDocuments } from './helpers/seed.js'
import { cases, extent } from './helpers/settings.js'
import { StoredBackupsOf } from './helpers/stored-backups.js'

const RUNS = cases(extent(1, 2))
const INSTANCES = 2

/** A step of a history. Numbers choose among what there is then. */
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('back up' as const), by: fc.nat(), shares: fc.nat({ max: 3 }) })
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('clone' as const), of: fc.nat(), manifest: fc.boolean() })
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('remove' as const), by: fc.nat(), which: fc.nat() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('prune' as const),
      by: fc.nat(),
      last: fc.integer({ min: 1, max: 3 })
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('crash' as const), which: fc.nat(), writes: fc.nat({ max: 12 }) })
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restore' as const), by: fc.nat(), which: fc.nat() }) }
)
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

const pick = <T>(from: readonly T[], number: number): T => from[number % from.length]!

/** Databases with several instances on them, and what is expected of them. */
class History {
  readonly #t: Test
  readonly #on: Awaited<ReturnType<typeof setupDatabases>>
  readonly #instances: readonly DbBackups[]
  readonly #stored: StoredBackupsOf
  /** What a get sent of each backup when it was made. */
  readonly #backups = new Map<string, string>()
  #changes = 0

  private constructor(
    t: Test,
    on: Awaited<ReturnType<typeof setupDatabases>>,
    instances: readonly DbBackups[]
  ) {
    this.#t = t
    this.#on = on
    this.#instances = instances
    this.#stored = new StoredBackupsOf(on)
  }

  static async begin(t: Test): Promise<History> {
    const on = await setupDatabases(t)
    await load(on.couch.use(on.names.components), seedDocuments({ count: 5 }))
    await load(on.couch.use(on.names.sessions), seedDocuments({ count: 5 }))
    const instances: DbBackups[] = []
    for (let i = 0; i < INSTANCES; i++) instances.push((await buildHost(t, { on })).app.dbBackups)
    const history = new History(t, on, instances)
    await history.take({ do: 'back up', by: 0, shares: 0 })
    return history
  }

  async take(step: Step): Promise<void> {
    const ids = [...this.#backups.keys()]
    const by = 'by' in step ? pick(this.#instances, step.by) : this.#instances[0]!
    if (step.do === 'back up') await this.#backUp(by, step.shares, ids.at(-1))
    else if (step.do === 'clone') await this.#clone(pick(ids, step.of), step.manifest)
    else if (step.do === 'prune') {
      const { kept } = await by.prune({ keep: { last: step.last } })
      this.#is(kept.map(({ id }) => id).join(), ids.slice(-step.last).join(), 'the last are kept')
      for (const id of ids.slice(0, -step.last)) this.#backups.delete(id)
      await this.#tidy()
    } else if (step.do === 'restore') await this.#restore(by, pick(ids, step.which))
    else if (ids.length === 1) return
    else if (step.do === 'remove') {
      const id = pick(ids.slice(0, -1), step.which)
      await by.remove(id)
      this.#backups.delete(id)
      await this.#tidy()
    } else await this.#crash(ids, step.which, step.writes)
    await this.#check()
  }

  async #backUp(by: DbBackups, shares: number, base: string | undefined): Promise<void> {
    const components = this.#on.couch.use(this.#on.names.components)
    const unchanged = base !== undefined && (shares & 1) === 1
    if (!unchanged) await components.insert({ _id: `change_${++this.#changes}` } as never)
    const { id, finished } = await by.start()
    await finished
    if (base !== undefined && shares > 0) await this.#stored.shareDatabase(id, base, 'sessions')
    this.#backups.set(id, await this.#read(id))
  }

  async #clone(of: string, manifest: boolean): Promise<void> {
    const id = await this.#stored.clone(of)
    if (manifest) await this.#stored.moveToManifest(id)
    this.#backups.set(id, await this.#read(id))
  }

  /** Removes some backups, as an instance does that dies after so many writes. */
  async #crash(ids: readonly string[], which: number, writes: number): Promise<void> {
    const chosen = new Map(
      ids
        .slice(0, -1)
        .filter((_, i) => ((which >> i) & 1) === 1)
        .map((id) => [id, ['chosen']])
    )
    const { url, names } = this.#on
    let left = writes
    const beforeWrite = () => {
      if (left-- <= 0) throw new Error('the instance died')
    }
    const client = clientOf(this.#t, url).with({ beforeWrite })
    const repository = new Repository(new CouchDatabase(client, names.system))
    const remaining = new Set(ids.filter((id) => !chosen.has(id)))
    const removal = repository.removal({
      ids: chosen,
      remaining,
      owner: { system: names.system },
      dryRun: false,
      orphans: false,
      onRemoved: () => {}
    })
    await removal.prepare()
    await removal.run().catch((error: Error) => {
      if (error.message !== 'the instance died') throw error
    })
    const listed = await this.#stored.backups()
    for (const id of ids) {
      if (listed.includes(id)) continue
      if (!chosen.has(id)) throw new Error(`${id} is gone`)
      this.#backups.delete(id)
    }
  }

  async #restore(by: DbBackups, id: string): Promise<void> {
    const { finished } = await by.restore({ id }, { exact: true })
    await finished
    const { rows } = await this.#on.couch.use(this.#on.names.components).list()
    const { dbs } = JSON.parse(this.#backups.get(id)!)
    const held = dbs.athena_components.docs.map(({ _id }: { _id: string }) => _id)
    this.#is(rows.map((row) => row.id).join(), held.sort().join(), `${id} is restored whole`)
  }

  /** Every backup is listed by every instance, and is what it was. */
  async #check(): Promise<void> {
    for (const instance of this.#instances)
      this.#is((await instance.list()).ids.join(), [...this.#backups.keys()].join(), 'the list')
    for (const [id, was] of this.#backups) this.#is(await this.#read(id), was, `${id} is whole`)
  }

  async #tidy(): Promise<void> {
    this.#is((await this.#stored.flaws()).join('; '), '', 'nothing is left')
  }

  async #read(id: string): Promise<string> {
    return text((await this.#instances[0]!.get(id)).body)
  }

  #is(found: string, wanted: string, what: string): void {
    if (found !== wanted)
      throw new Error(`${what}: ${found.slice(0, 500)} instead of ${wanted.slice(0, 500)}`)
  }
}

t.test('whatever backups, removals, crashes and restores follow, every listed backup is whole', async (t) => {
  t.setTimeout(60_000 + RUNS * 60_000)
  const histories = fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 15 }), async (steps) => {
    await t.test(`${steps.length} steps`, async (t) => {
      const history = await History.begin(t)
      for (const one of steps) await history.take(one)
      await history.take({ do: 'prune', by: 1, last: 2 })
    })
  })
  await fc.assert(histories, { numRuns: RUNS, seed: Number(process.env.PRUNE_SEED ?? 1), endOnFailure: true })
})
