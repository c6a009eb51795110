import t from 'tap'
import { type CrashRig, onRigs } from '../helpers/crash-runs.js'
import { StoredBackupsOf } from '../helpers/stored-backups.js'

/** Returns the ids of the keys that a backup's header, and the chunks that it lists, are sealed with. */
async function keysOf(stored: StoredBackupsOf, id: string): Promise<string[]> {
  const { storage } = await stored.header(id)
  const entries = Object.values(storage.databases).flatMap(({ chunks }) => chunks)
  return [...new Set([storage.seal?.key, ...entries.map(({ sealed }) => sealed)].map(String))]
}

const rekey = (rig: CrashRig) => rig.begin(() => rig.server.post('/rekey'))

t.test(
  'backups that are sealed anew while the server is killed stay whole, and the rest follows',
  async (t) => {
    await onRigs(
      t,
      4,
      async (rig, next, tally) => {
        const stored = new StoredBackupsOf(rig.databases)
        const keys = ['k0']
        await rig.configure({ keys })
        const ids = [await rig.backup(), await rig.backup()]
        const another = async () => {
          keys.push(`k${keys.length}`)
          await rig.configure({ keys })
        }
        await another()
        const requests = await rig.requestsOf(() => rekey(rig))
        while (next()) {
          await another()
          const [last, current] = keys.slice(-2)
          const where = await rig.crash(requests, () => rekey(rig))
          const found = await Promise.all(ids.map((id) => keysOf(stored, id)))
          const done = found.filter((of) => of.includes(current)).length
          tally.add(done === 0 ? 'had not begun' : found.flat().includes(last) ? 'interrupted' : 'had ended')
          await rig.restart()
          for (const id of ids)
            t.equal(await rig.differencesOf(id), '', `${id} is whole after a crash at ${where}`)
          const { json } = await rekey(rig)
          t.match(json, { key: current, left: [] })
          for (const id of ids) t.strictSame(await keysOf(stored, id), [current])
          for (const id of ids) t.equal(await rig.differencesOf(id), '')
          t.strictSame(await stored.flaws(), [], `nothing is left by a crash at ${where}`)
        }
      },
      { perCrash: 20_000 }
    )
  }
)
