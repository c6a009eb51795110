import t from 'tap'
import type { DocumentDiff } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { agreeing, noAdministrator, type Responder, setupReplicas } from './helpers/replicas-proxy.js'

const IDS = Array.from({ length: 12 }, (_, i) => `doc ${i}`)

/** Answers a scan from a replica that has no documents yet. */
const showsNothing: Responder = async ({ line, forward }) => {
  if (!/_components\/_all_docs/.test(line)) return undefined
  const { status, json } = await forward()
  return { status, json: { ...(json as object), rows: [] } }
}

for (const [name, replicas] of Object.entries({
  'a replica that does not show documents': [noAdministrator, showsNothing],
  'a replica that does not show documents, though all agreed': [agreeing, showsNothing]
}))
  t.test(`${name} does not have a diff tell that they were deleted`, async (t) => {
    const { raw, on } = await setupReplicas(t, replicas)
    const { components } = raw.names
    const write = (docs: object[]) =>
      raw.write(
        components,
        docs.map((doc) => JSON.stringify(doc))
      )
    await write(IDS.map((_id) => ({ _id, by: 'backup' })))
    const id = await apiOf(await buildHost(t, { on: raw })).backup()
    const { app } = await buildHost(t, { on })
    const diff = async (): Promise<DocumentDiff[]> => app.dbBackups.diff(id, { against: 'now' }).toArray()
    t.strictSame(await diff(), [], 'all are found')

    const { docs } = raw.raw.store.get(components)!
    await write(IDS.map((_id) => ({ _id, _rev: docs.get(_id)!.leaves[0]!.rev, by: 'console' })))
    const found = await diff()
    t.equal(found.length, IDS.length)
    for (const one of found) t.match(one, { change: 'changed', fields: ['by'] })
  })
