import t from 'tap'
import { type CrashRig, onRigs, TAKEOVER } from '../helpers/crash-runs.js'
import { poll } from '../helpers/poll.js'
import { StoredBackupsOf } from '../helpers/stored-backups.js'

async function backUp(rig: CrashRig, stored: StoredBackupsOf): Promise<string> {
  for (;;) {
    const { json } = await rig.begin(() => rig.server.post(''))
    const ended = async () => {
      const header = await stored.header(json.id)
      return header.in_progress ? undefined : header
    }
    const { error } = await poll(`the end of ${json.id}`, ended, TAKEOVER)
    if (error === undefined) return json.id
    // A server that is busy for longer than its lease gives up; what failed is left to be pruned.
    if (!/^interrupted/.test(error)) throw new Error(error)
  }
}

/** Makes a backup, and three more that list its chunks, one by a manifest. */
async function fill(rig: CrashRig, stored: StoredBackupsOf): Promise<void> {
  const base = await backUp(rig, stored)
  await stored.clone(base)
  await stored.moveToManifest(await stored.clone(base))
  await stored.clone(base)
}

const prune = (rig: CrashRig) => rig.begin(() => rig.server.post('/prune-to/2'))

t.test('a pruning whose server is killed loses nothing that stays, and is completed', async (t) => {
  await onRigs(t, 5, async (rig, next, tally) => {
    const stored = new StoredBackupsOf(rig.databases)
    const tidy = async () => ((await stored.flaws()).length === 0 ? true : undefined)
    await fill(rig, stored)
    await prune(rig)
    await fill(rig, stored)
    const requests = await rig.requestsOf(() => prune(rig))
    const marks = rig.proxy.seen.findIndex(({ method, path }) => method === 'PUT' && /\/03_ibp_db/.test(path))
    t.ok(marks > 0)
    while (next()) {
      await fill(rig, stored)
      const before = await stored.good()
      const where = await rig.crash(requests, () => prune(rig), marks - 2)
      const left = await stored.good()
      t.strictSame(left.slice(-2), before.slice(-2), `a crash at ${where}: what stays is still there`)
      const had = left.length === 2 ? 'had ended' : 'interrupted'
      tally.add(left.length === before.length ? 'had not begun' : had)
      await rig.restart()
      await poll(`the completion after a crash at ${where}`, tidy, TAKEOVER)
      for (const id of await stored.good()) {
        t.equal(await rig.differencesOf(id), '', `${id} is whole`)
      }
      await prune(rig)
      t.strictSame(await stored.good(), before.slice(-2))
      t.strictSame(await stored.flaws(), [])
    }
  })
})
