import { createHash } from 'node:crypto'
import t, { type Test } from 'tap'
import type { StoredHeader } from '../lib/repository/layout.js'
import { Repository } from '../lib/repository/repository.js'
import { factsOf } from './helpers/chunk-writer.js'
import { clientOf } from './helpers/couch-client.js'
import { setupDatabases } from './helpers/database.js'
import { backUp, begin, sourcesOn } from './helpers/repository-runs.js'

const SECOND = '03_ibp_db_backup_2'

/** Stores three chunks in a backup that has not ended, and one in a complete backup, whose header is returned. */
async function twoBackups(t: Test) {
  const on = await setupDatabases(t)
  const sources = sourcesOn(clientOf(t, on.url), on.names)
  const system = on.couch.use(on.names.system)
  await on.couch.use(on.names.components).insert({ _id: 'a' })
  const repository = new Repository(sources.system)
  const complete = (await system.get((await backUp(repository, sources)).id)) as unknown as StoredHeader
  const first = await begin(repository, sources)
  const writer = repository.runningBackup(first).writer({
    database: 'components',
    first: 0,
    base: undefined,
    waste: 0.25,
    onRefused: () => t.fail('nothing is refused')
  })
  for (const id of ['a', 'b', 'c']) {
    await writer.add(Buffer.from(JSON.stringify({ _id: id })), factsOf(id))
    await writer.endDocuments()
  }
  const chunks = async () => {
    const { rows } = await system.list({ startkey: `backup_chunk_${stampOf(first)}_`, endkey: 'backup_d' })
    return rows.map(({ id }) => id)
  }
  const [one, two, three, ...unused] = await chunks()
  const [entry] = complete.storage.databases.components!.chunks
  /** Stores a header, older than the first backup, whose storage is as given. */
  const list = (storage: object) =>
    system.insert({ ...complete, _id: SECOND, _rev: undefined, storage } as never)
  const entryOf = (id: string) => ({ ...entry, id })
  return { system, repository, complete, first, chunks, list, entryOf, parts: [one!, two!, three!], unused }
}

const stampOf = (id: string) => id.slice('03_ibp_db_backup_'.length)

t.test('chunks that another header lists stay when their backup fails, and the rest goes', async (t) => {
  const { system, repository, complete, first, chunks, list, entryOf, parts } = await twoBackups(t)
  const [one, two, three] = parts as [string, string, string]
  const entries = JSON.stringify([entryOf(two)])
  const manifest = { id: 'backup_manifest_2_components_000000', chunks: 1 }
  await system.insert({
    _id: manifest.id,
    type: 'athena_backup_manifest',
    backup_id: SECOND,
    database: 'components',
    entries
  } as never)
  const sha256 = createHash('sha256').update(entries).digest('hex')
  await list({
    ...complete.storage,
    databases: {
      components: { manifests: [{ ...manifest, sha256 }], chunks: [entryOf(one)], superseded: [] },
      sessions: { manifests: [], chunks: [], superseded: [entryOf(three)] }
    }
  })
  await repository.runningBackup(first).fail('it failed')
  t.strictSame(await chunks(), parts, 'listed by the header, by its manifest, and as superseded')
  t.notOk(await repository.hasUnlistedParts(first), 'nothing is left to be deleted')

  await system.destroy(SECOND, (await system.get(SECOND))._rev)
  t.ok(await repository.hasUnlistedParts(first))
  await repository.runningBackup(first).fail('it failed')
  t.strictSame(await chunks(), [], 'no header lists them any more')
})

for (const [what, storage] of Object.entries<object>({
  'is of a later layout': { layout: 99, instance: 'a', databases: {} },
  'has lost its manifest': {
    layout: 2,
    instance: 'a',
    databases: {
      components: {
        manifests: [{ id: 'backup_manifest_2_components_000000', chunks: 1, sha256: '' }],
        chunks: [],
        superseded: []
      }
    }
  },
  'is damaged': { layout: 2, instance: 'a', databases: { components: {} } }
})) {
  t.test(
    `a header that ${what} may list anything: nothing is deleted, and the backup fails as it should`,
    async (t) => {
      const { system, repository, first, chunks, list, parts, unused } = await twoBackups(t)
      await list(storage)
      await repository.runningBackup(first).fail('it failed')
      t.match(await system.get(first), { in_progress: false, error: 'it failed' })
      t.strictSame(await chunks(), [...parts, ...unused])
      t.notOk(await repository.hasUnlistedParts(first), 'it is not looked after for ever')
    }
  )
}
