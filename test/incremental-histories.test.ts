import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { BackupSummary } from '../types/index.js'
import {
  backUp,
  buildPair,
  type ChainDatabases,
  contentDifferences,
  download,
  type Pair,
  truthOf
} from './helpers/chain.js'
import { DATABASES } from './helpers/database.js'
import { difference, type Fingerprints, fingerprintsOf } from './helpers/fingerprints.js'
import {
  applyStep,
  histories,
  historyRuns,
  KEPT_OUT_LATER,
  type Step,
  setupSettled
} from './helpers/histories.js'
import { buildHost } from './helpers/host.js'

const { steps: STEPS, timeout: TIMEOUT, parameters: PARAMETERS } = historyRuns(8)

interface Made {
  summary: BackupSummary
  truth: Record<string, Fingerprints>
}

/** How many databases were read in full, and how many were not, over all histories. */
const read = { incremental: 0, full: new Map<string, number>() }

function count({ dbs }: BackupSummary): void {
  for (const { base, full_reason } of Object.values(dbs)) {
    if (base) read.incremental++
    else read.full.set(String(full_reason), (read.full.get(String(full_reason)) ?? 0) + 1)
  }
}

/** Makes a backup of a chain and a full one, and compares both with the sources. */
async function backUpAndCompare(on: ChainDatabases, pair: Pair, excluded: readonly string[]): Promise<Made> {
  const truth = await truthOf(on, on.names, excluded)
  const summary = await backUp(pair.chain)
  const full = await backUp(pair.full, { full: true })
  count(summary)
  const different = await contentDifferences([pair.chain, summary], [pair.full, full])
  const { dbs } = JSON.parse((await download(pair.chain, summary.id)).toString())
  for (const logical of DATABASES) {
    const found = difference(truth[logical]!, fingerprintsOf(dbs[`athena_${logical}`].docs))
    if (found) different.push(`${logical}: ${found}`)
  }
  if (full.base !== undefined || full.chain_length !== 0) different.push('the full one has a base')
  if (different.length > 0) throw new Error(different.join('\n'))
  return { summary, truth }
}

/** Restores a backup into empty databases, and compares them with the sources as they were. */
async function restoreAndCompare(t: Test, on: ChainDatabases, { summary, truth }: Made, name: string) {
  const names = { ...on.names }
  for (const logical of DATABASES) names[logical] = await on.create(`${on.names[logical]}_${name}`)
  const host = await buildHost(t, { on, databases: names })
  await (await host.app.dbBackups.restore({ id: summary.id })).finished
  await host.app.close()
  for (const logical of DATABASES) {
    const documents = await on.fetchAll(names[logical])
    const found = difference(truth[logical]!, fingerprintsOf(documents.values()))
    if (found) throw new Error(`restored ${summary.id}, ${logical}: ${found}`)
    await on.call('DELETE', names[logical])
  }
}

async function runHistory(t: Test, steps: Step[], waste: number): Promise<void> {
  const on = await setupSettled(t)
  const incremental = { chain: 1000, waste }
  const excludeTypes = [KEPT_OUT_LATER]
  const pairs = [
    { excluded: [] as string[], pair: await buildPair(t, on, { incremental }) },
    { excluded: excludeTypes, pair: await buildPair(t, on, { incremental, excludeTypes }) }
  ]
  const made: Made[] = []
  try {
    for (const step of [{ changes: [], excludes: false }, ...steps]) {
      await applyStep(on, step)
      const { pair, excluded } = pairs[step.excludes ? 1 : 0]!
      made.push(await backUpAndCompare(on, pair, excluded))
    }
    for (const [i, one] of made.entries()) await restoreAndCompare(t, on, one, `restored${i}`)
  } finally {
    for (const { pair } of pairs) for (const host of Object.values(pair)) await host.app.close()
  }
}

t.test(
  'each backup of a chain holds what a full one of that moment does',
  { timeout: TIMEOUT },
  async (t) => {
    await fc.assert(
      // with little waste allowed, most backups write chunks anew
      fc.asyncProperty(histories(STEPS), fc.constantFrom(0.05, 0.25), (steps, waste) =>
        runHistory(t, steps, waste)
      ),
      PARAMETERS
    )
    const full = [...read.full.values()].reduce((sum, count) => sum + count, 0)
    t.comment(`${read.incremental} incremental, ${full} full: ${JSON.stringify([...read.full])}`)
    t.ok(read.incremental > full / 2, 'many databases were not read in full')
  }
)
