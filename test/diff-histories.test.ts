import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { IncompleteRestoreError } from '../lib/index.js'
import type { BackupSummary, DocumentDiff } from '../types/index.js'
import { backUp, download } from './helpers/chain.js'
import { DATABASES } from './helpers/database.js'
import {
  applyStep,
  histories,
  historyRuns,
  KEPT_OUT_LATER,
  type Step,
  setupSettled
} from './helpers/histories.js'
import { buildHost, type TestHost } from './helpers/host.js'
import { naiveDiff, shown, sorted, type Told } from './helpers/naive-diff.js'

const { steps: STEPS, timeout: TIMEOUT, parameters: PARAMETERS } = historyRuns(4)

interface Made {
  summary: BackupSummary
  content: Buffer
  excludes: boolean
}

async function make(host: TestHost, full: boolean, excludes: boolean): Promise<Made> {
  const summary = await backUp(host, { full })
  return { summary, content: await download(host, summary.id), excludes }
}

/** Compares all backups that were made with each other, in both directions. */
async function compareAll({ app }: TestHost, made: readonly Made[]): Promise<void> {
  for (const one of made) {
    for (const other of made) {
      const leftOut = one.excludes !== other.excludes ? [KEPT_OUT_LATER] : []
      const naive = naiveDiff(one.content, other.content, leftOut)
      const found: DocumentDiff[] = await app.dbBackups
        .diff(one.summary.id, { against: other.summary.id })
        .toArray()
      // a large document with an id that is not Unicode cannot be indexed
      const unknown = found.filter(({ id, change }) => change === 'unknown' && !id.isWellFormed())
      const isKnown = (document: Told) =>
        !unknown.some(({ database, id }) => database === document.database && id === document.id)
      const [told, expected] = [sorted(found.filter(isKnown)), sorted(naive.filter(isKnown))]
      if (JSON.stringify(told) !== JSON.stringify(expected))
        throw new Error(
          `${one.summary.id} to ${other.summary.id}: ${told.join()}; expected ${expected.join()}`
        )
      compared.diffs++
      compared.documents += told.length
      if (other.summary.base) compared.shared++
    }
  }
}

/** Compares backups with the databases as they are, as an exact restore that only compares does. */
async function compareWithNow({ app }: TestHost, made: readonly Made[]): Promise<void> {
  const now = made.at(-1)!
  for (const { summary, content, excludes } of made) {
    const found: DocumentDiff[] = await app.dbBackups.diff(summary.id, { against: 'now' }).toArray()
    const { finished } = await app.dbBackups.restore({ id: summary.id }, { dryRun: true, exact: true })
    const { databases } = await finished.catch((error: IncompleteRestoreError) => error.outcome)
    for (const database of DATABASES) {
      const count = (change: string) =>
        found.filter((one) => one.database === database && one.change === change).length
      const { created, changed, deleted } = databases[database]!
      const told = [count('deleted'), count('changed'), count('created')]
      if (told.join() !== [created, changed, deleted].join())
        throw new Error(
          `${summary.id}, ${database}: ${told} to now, a restore tells ${[created, changed, deleted]}`
        )
    }
    if (excludes || now.excludes || found.some(({ change }) => change === 'unknown')) continue
    const naive = naiveDiff(content, now.content)
    const leftOut = (one: DocumentDiff) =>
      // the database has it, with a type that backups leave out
      one.fields?.includes('type') &&
      naive.some(
        ({ database, id, change }) =>
          change === 'deleted' && shown(id) === shown(one.id) && database === one.database
      )
    const seen = found.map(
      (one): Told => (leftOut(one) ? { ...one, change: 'deleted', fields: undefined } : one)
    )
    const [told, expected] = [sorted(seen), sorted(naive)]
    if (told.join() !== expected.join())
      throw new Error(`${summary.id} to now: ${told}; expected ${expected}`)
  }
}

const compared = { diffs: 0, documents: 0, shared: 0 }

async function runHistory(t: Test, steps: Step[], full: readonly boolean[], waste: number): Promise<void> {
  const on = await setupSettled(t)
  const options = { on, databases: on.names, incremental: { chain: 1000, waste } }
  const hosts = [
    await buildHost(t, options),
    await buildHost(t, { ...options, excludeTypes: [KEPT_OUT_LATER] })
  ] as const
  const made: Made[] = []
  try {
    for (const [i, step] of [{ changes: [], excludes: false }, ...steps].entries()) {
      await applyStep(on, step)
      made.push(await make(hosts[step.excludes ? 1 : 0], full[i] ?? false, step.excludes))
    }
    await compareAll(hosts[0], made)
    await compareWithNow(hosts[0], made)
  } finally {
    for (const host of hosts) await host.app.close()
  }
}

t.test(
  'a diff of any two backups, in both directions, tells what their downloads differ in',
  { timeout: TIMEOUT },
  async (t) => {
    await fc.assert(
      fc.asyncProperty(
        histories(STEPS),
        fc.array(fc.boolean(), { maxLength: STEPS + 1 }),
        // with little waste allowed, most backups write chunks anew
        fc.constantFrom(0.05, 0.25),
        (steps, full, waste) => runHistory(t, steps, full, waste)
      ),
      PARAMETERS
    )
    t.comment(`${compared.diffs} diffs of ${compared.documents} documents, ${compared.shared} with a base`)
    t.ok(compared.documents > 0, 'some differ')
  }
)
