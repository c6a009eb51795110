import t, { type Test } from 'tap'
import type { StoredHeader } from '../../lib/repository/layout.js'
import { backUp, buildPair, contentDifferences, listedChunks, setupChain } from '../helpers/chain.js'
import { randomOf } from '../helpers/random.js'
import { bytesOf } from '../helpers/seed.js'
import { wholeNumber } from '../helpers/settings.js'

/** Backups of each chain. */
const STEPS = wholeNumber('CHAIN_STEPS', 24)
const DOCUMENTS = 6000
const MiB = 1024 * 1024
/** Most that a reader reads for each byte that counts. */
const WASTE = 1.34
/** Chunks that a backup may list beside those that its bytes fill. */
const SMALL_CHUNKS = 10

interface Document {
  _id: string
  v: number
}

const documentOf = ({ _id, v }: Document, size: number) => ({
  _id,
  type: 'fabric-peer',
  v,
  text: bytesOf(`${_id} ${v}`, Math.ceil(size * 0.75)).toString('base64')
})

/** Which documents change before a backup, by their numbers. */
const CHAINS: Record<string, (step: number, random: () => number) => number[]> = {
  'a few documents change very often': () => [0, 1, 2, 3000, 5999],
  'random documents change': (_, random) =>
    Array.from({ length: 60 }, () => Math.floor(random() * DOCUMENTS)),
  'everything changes slowly': (step) => Array.from({ length: 150 }, (_, i) => (step * 150 + i) % DOCUMENTS),
  'the newest documents are written again': (step) =>
    Array.from({ length: 40 }, (_, i) => (step * 7 + i * 3) % DOCUMENTS)
}

async function runChain(t: Test, choose: (step: number, random: () => number) => number[]) {
  const on = await setupChain(t)
  const { components, backups } = on.names
  const random = randomOf(1)
  const size = () => Math.floor(100 + random() * 1800)
  const revs = new Map<string, string>()
  const versions = new Map<string, number>()
  const write = async (ids: readonly string[]) => {
    const docs = ids.map((_id) => {
      const v = (versions.get(_id) ?? 0) + 1
      versions.set(_id, v)
      return { ...documentOf({ _id, v }, size()), ...(revs.has(_id) && { _rev: revs.get(_id) }) }
    })
    for (const { id, rev, error } of await on.write(components, docs)) {
      if (error) throw new Error(`${id}: ${error}`)
      revs.set(id, rev!)
    }
  }
  const idOf = (n: number) => `doc ${n}`
  for (let from = 0; from < DOCUMENTS; from += 1000)
    await write(Array.from({ length: 1000 }, (_, i) => idOf(from + i)))

  const pair = await buildPair(t, on)
  const worst = { waste: 0, chunks: 0, added: 0, index: 0, header: 0 }
  for (let step = 0; step < STEPS; step++) {
    if (step > 0) await write([...new Set(choose(step, random))].map(idOf))
    const summary = await backUp(pair.chain)
    const { raw_bytes, doc_count, base, added_bytes } = summary.dbs.athena_components!
    t.equal(doc_count, DOCUMENTS)
    if (step > 0) {
      t.match(base, /^03_/, `backup ${step} is not a full one`)
      worst.added = Math.max(worst.added, added_bytes!)
    }
    const listed = await listedChunks(on, backups, summary.id, 'components')
    const raw = listed.reduce((sum, chunk) => sum + chunk.raw, 0)
    const share = raw / raw_bytes!
    if (share > WASTE) t.fail(`backup ${step} reads ${share.toFixed(3)} times its documents`)
    const small = listed.length - raw / MiB
    if (small > SMALL_CHUNKS) t.fail(`backup ${step} lists ${listed.length} chunks of ${raw} bytes`)
    const header = (await on.couch.use(backups).get(summary.id)) as unknown as StoredHeader
    const index = header.storage.databases.components!.index!
    worst.waste = Math.max(worst.waste, share)
    worst.chunks = Math.max(worst.chunks, listed.length)
    worst.index = Math.max(worst.index, index.reduce((sum, chunk) => sum + chunk.raw, 0) / DOCUMENTS)
    worst.header = Math.max(worst.header, JSON.stringify(header).length)
    if (step % 20 === 19 || step === STEPS - 1) {
      const full = await backUp(pair.full, { full: true })
      const different = await contentDifferences([pair.chain, summary], [pair.full, full])
      t.strictSame(different, [], `backup ${step} holds what a full one does`)
    }
  }
  t.ok(worst.waste <= WASTE, `at most ${worst.waste.toFixed(3)} times the documents are read`)
  t.ok(worst.index < 100, `at most ${worst.index.toFixed(1)} bytes of index for each document`)
  t.ok(worst.header < MiB, `headers of at most ${worst.header} bytes`)
  t.comment(JSON.stringify(worst))
}

for (const [what, choose] of Object.entries(CHAINS)) {
  t.test(
    `${what}: a backup of a long chain reads little that does not count`,
    {
      timeout: 60_000 + STEPS * 2000
    },
    (t) => runChain(t, choose)
  )
}
