import { isDeepStrictEqual } from 'node:util'
import t, { type Test } from 'tap'
import type { BackupSummary } from '../types/index.js'
import { type ChainDatabases, download, setupChain } from './helpers/chain.js'
import type { FetchedDocument } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { startPagingProxy } from './helpers/relay.js'
import { extent } from './helpers/settings.js'
import { read, said, sorted, stateAt, Writer, type Written } from './helpers/writer.js'

const LOADED = extent(800, 2500)
const WRITES = 1500
/** Number of writes between two requests of a backup. */
const WRITES_BETWEEN = 25

/** Makes one backup after the other while a client writes to components. */
async function backUpWhileWriting(t: Test, on: ChainDatabases, sequence: () => Promise<number>) {
  const { components } = on.names
  const writer = new Writer(on.couch.use(components), sequence)
  await writer.load(LOADED)
  let backingUp = false
  const proxy = await startPagingProxy(t, on.url, {
    page: 100,
    async before(line) {
      if (backingUp && line.includes(`/${components}/`)) await writer.writes(WRITES_BETWEEN)
    }
  })
  const host = await buildHost(t, { on, couch: proxy.couch, databases: on.names })
  const made: { summary: BackupSummary; during: number }[] = []
  backingUp = true
  let writing = true
  const written = writer.run(WRITES).finally(() => {
    writing = false
  })
  while (writing) {
    const before = writer.log.length
    const { finished } = await host.app.dbBackups.start()
    made.push({ summary: await finished, during: writer.log.length - before })
  }
  await written
  backingUp = false
  // one more, of what came after the last
  const { finished } = await host.app.dbBackups.start()
  made.push({ summary: await finished, during: 0 })
  t.ok(made.length > 5, `${made.length} backups`)
  const incremental = made.filter(({ summary, during }) => summary.dbs.athena_components!.base && during > 0)
  t.ok(incremental.length > 3, `${incremental.length} incremental ones while a client wrote`)
  t.comment(`${proxy.pages()} pages, writes during each: ${made.map(({ during }) => during)}`)
  return { writer, host, made }
}

const componentsOf = (t: Test, sent: Buffer): Map<string, FetchedDocument> => {
  const { dbs } = JSON.parse(sent.toString())
  const docs: FetchedDocument[] = dbs.athena_components.docs
  const found = new Map(docs.map((doc) => [doc._id, doc]))
  t.equal(found.size, docs.length, 'every document stands there once')
  t.equal(dbs.athena_components.doc_count, docs.length)
  return found
}

t.test('an incremental backup is the database at its last_sequence, while it is written to', async (t) => {
  const on = await setupChain(t)
  if (on.real) return t.comment('sequences of a real CouchDB are opaque: see below')
  const sequence = async () => on.raw!.store.get(on.names.components)!.seq
  const { writer, host, made } = await backUpWhileWriting(t, on, sequence)
  for (const { summary } of made) {
    const found = componentsOf(t, await download(host, summary.id))
    const seq = Number.parseInt(summary.dbs.athena_components!.last_sequence, 10)
    const expected = stateAt(writer.log, seq)
    const documents = new Map([...found].map(([id, document]) => [id, read(document)]))
    t.strictSame(sorted(documents), sorted(expected), `${summary.id} at ${seq}`)
  }
})

t.test('an incremental backup holds what did not change after its last_sequence as it is', async (t) => {
  const on = await setupChain(t)
  const { writer, host, made } = await backUpWhileWriting(t, on, async () => 0)
  const versions = new Map<string, Written[]>()
  for (const written of writer.log) versions.set(written.id, [...(versions.get(written.id) ?? []), written])
  for (const { summary } of made) {
    const found = componentsOf(t, await download(host, summary.id))
    const since = encodeURIComponent(summary.dbs.athena_components!.last_sequence)
    const { results } = await on.call('GET', `${on.names.components}/_changes?since=${since}`)
    const later = new Set(results.map(({ id }: { id: string }) => id))
    const wrong: string[] = []
    for (const [id, all] of versions) {
      const document = found.get(id)
      const living = all.filter(({ doc }) => doc && doc.type !== 'pillow_talk_doc')
      const last = all.at(-1)!
      const version = living.find(({ rev }) => rev === document?._rev)
      const same = document && version && isDeepStrictEqual(read(document), said(id, version))
      if (later.has(id) ? document && !same : living.includes(last) ? !same || version !== last : document)
        wrong.push(id)
    }
    t.strictSame(wrong, [], `${later.size} documents changed after ${summary.id}`)
    t.strictSame(
      [...found.keys()].filter((id) => !versions.has(id)),
      []
    )
  }
})
