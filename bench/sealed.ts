import { randomBytes } from 'node:crypto'
import { parseArgs } from 'node:util'
import nano from 'nano'
import { runBackup } from '../lib/backup/backup-job.js'
import { CouchClient } from '../lib/couch/client.js'
import { connectionOf } from '../lib/couch/connection.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { BACKGROUND } from '../lib/couch/retry.js'
import { Progress } from '../lib/observe/progress.js'
import { typesLeftOut } from '../lib/own-documents.js'
import { Repository } from '../lib/repository/repository.js'
import { Keyring } from '../lib/seal/keyring.js'
import { median } from './jobs.js'

const USAGE = `npm run bench -- sealed --from PREFIX [--rounds N]

  --from PREFIX  names of the source databases before _components, _sessions and _system; they are only read
  --rounds N     pairs of full backups, one plain, one sealed, in turns (default 3)

COUCHDB_URL, with credentials in it, names the server. Prints processor time of this process for each backup, both
medians, and the share that sealing adds. Backups go to a database of their own, which is deleted.`

/** Measures what sealing adds to a backup's processor time. */
export async function measureSealed(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { from: { type: 'string' }, rounds: { type: 'string', default: '3' }, help: { type: 'boolean' } }
  })
  const url = process.env.COUCHDB_URL
  if (values.help || !values.from || !url) {
    console.log(USAGE)
    return
  }
  const couch = nano(url)
  const client = new CouchClient({
    connect: () => connectionOf(couch),
    retry: BACKGROUND,
    control: 120_000,
    idle: 120_000
  })
  const source = (database: string) => new CouchDatabase(client, `${values.from}_${database}`)
  const sources = { components: source('components'), sessions: source('sessions'), system: source('system') }
  const secret = randomBytes(32)
  const keyring = new Keyring({ current: 'bench', key: () => secret }, 1000)
  const times = { plain: [] as number[], sealed: [] as number[] }
  const backups = `bench_sealed_${randomBytes(4).toString('hex')}`
  const measure = async (kind: keyof typeof times) => {
    await couch.db.create(backups)
    const db = new CouchDatabase(client, backups)
    const repository = new Repository(db, kind === 'sealed' ? { keyring } : {})
    const { id } = (await repository.newIds())(0n, [])
    const began = process.cpuUsage()
    const owner = { system: sources.system.name }
    await repository.runningBackup(id).begin({ instance: 'bench', console: owner, versions: {} })
    await runBackup({
      id,
      owner,
      sources,
      repository,
      excludeTypes: typesLeftOut(),
      onUnreadable: 'report',
      full: true,
      mayLack: false,
      incremental: { chain: 1000, waste: 0.25 },
      progress: new Progress(),
      onPhase() {}
    })
    const { user, system } = process.cpuUsage(began)
    await couch.db.destroy(backups)
    return (user + system) / 1e6
  }
  try {
    // what runs first is compiled, and counts for neither
    await measure('plain')
    for (let round = 0; round < Number(values.rounds); round++)
      for (const kind of round % 2 === 0 ? (['plain', 'sealed'] as const) : (['sealed', 'plain'] as const)) {
        const seconds = await measure(kind)
        times[kind].push(seconds)
        console.log(`${kind}: ${seconds.toFixed(2)} s of processor time`)
      }
    const [plain, sealed] = [median(times.plain), median(times.sealed)]
    console.log(
      `plain ${plain.toFixed(2)} s, sealed ${sealed.toFixed(2)} s: sealing adds ${((sealed / plain - 1) * 100).toFixed(1)} %`
    )
  } finally {
    await couch.db.destroy(backups).catch(() => undefined)
    await client.close()
  }
}
