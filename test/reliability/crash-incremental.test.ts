import t, { type Test } from 'tap'
import { setupChain } from '../helpers/chain.js'
import { type CrashRig, onRigs } from '../helpers/crash-runs.js'
import { DATABASES, type TestDatabases } from '../helpers/database.js'
import { type Contents, contents } from '../helpers/fault-cells.js'

/** Databases whose backups are incremental; they lie in the system database. */
async function setup(t: Test): Promise<TestDatabases> {
  const { names, ...on } = await setupChain(t)
  const { components, sessions, system } = names
  return { ...on, names: { components, sessions, system } }
}

/** Changes a few documents of each database, and deletes and creates one. */
async function changeSome({ databases: { couch }, names }: CrashRig, round: number): Promise<void> {
  for (const logical of DATABASES) {
    const db = couch.use(names[logical])
    const { rows } = await db.list({ include_docs: true, limit: 1000 })
    const live = rows.map(({ doc }) => doc as unknown as { _id: string; type?: string })
    const own = live.filter(({ _id, type }) => !_id.startsWith('_') && /^(fabric|msp)/.test(type ?? ''))
    const at = (i: number) => own[(round * 3 + i) % own.length]!
    const changed = { ...at(0), changed: round }
    const docs = [changed, { ...at(1), _deleted: true }, { _id: `new ${round}`, type: 'msp', round }]
    await db.bulk({ docs })
  }
}

async function expectHeld(t: Test, rig: CrashRig, id: string, expected: Contents): Promise<void> {
  t.equal(await rig.differencesOf(id, expected), '', `${id} is whole`)
}

t.test('a server that is killed during an incremental backup leaves all earlier ones whole', async (t) => {
  await onRigs(
    t,
    4,
    async (rig, next, tally) => {
      const made = new Map<string, Contents>()
      const backUp = async (round: number) => {
        await changeSome(rig, round)
        const expected = await contents(rig)
        const id = await rig.backup()
        made.set(id, expected)
        return id
      }
      let round = 0
      await backUp(round++)
      const requests = await rig.requestsOf(() => backUp(round++))
      while (next()) {
        await changeSome(rig, round++)
        const expected = await contents(rig)
        const where = await rig.crash(requests, () => rig.begin(() => rig.server.post('')))
        await rig.restart()
        const headers = await rig.headers()
        const fresh = headers.filter(({ _id }) => !made.has(_id))
        t.ok(fresh.length <= 1, `a crash at ${where}`)
        const [header] = fresh
        tally.add(!header ? 'had not begun' : header.error ? 'interrupted' : 'had ended')
        if (header && !header.error) {
          await expectHeld(t, rig, header._id, expected)
          made.set(header._id, expected)
        }
        for (const [id, held] of made) await expectHeld(t, rig, id, held)
        const good = [...made.keys()].at(-1)
        const id = await backUp(round++)
        await expectHeld(t, rig, id, made.get(id)!)
        const { json } = await rig.server.get(`/${id}`)
        t.equal(json.base, good, 'the next one builds on the last that is good')
        await forgetFailed(rig)
      }
    },
    { setup, perCrash: 20_000 }
  )
})

/** Removes headers of failed backups, so that each crash is looked at by itself. */
async function forgetFailed({ databases: { couch }, names }: CrashRig): Promise<void> {
  const db = couch.use(names.backups)
  const { rows } = await db.list({ startkey: '03_ibp_', endkey: '03_ibq', include_docs: true })
  for (const { id, doc } of rows) {
    const { _rev, error } = doc as unknown as { _rev: string; error?: string }
    if (error) await db.destroy(id, _rev)
  }
}
