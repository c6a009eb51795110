import t from 'tap'
import {
  type Contents,
  contents,
  expectBackup,
  expectClear,
  expectTidy,
  expectWorking,
  type Operation,
  runMatrix
} from './helpers/fault-cells.js'

/** No cell changes the sources, which all share. */
let expected: Contents | undefined

const backup: Operation = {
  name: 'backup',
  points: (names) => [
    { name: 'any call', path: /./ },
    { name: 'lease', method: 'PUT', path: /athena_backup_lease/ },
    { name: 'header', method: 'PUT', path: /03_ibp_db_backup_/ },
    { name: 'changes', path: /_changes/ },
    { name: 'attachments', path: /_bulk_get/ },
    { name: 'chunk', method: 'PUT', path: /backup_chunk_/ },
    { name: 'check', method: 'GET', path: new RegExp(`^/${names.backups}/_all_docs`) },
    { name: 'end', method: 'PUT', path: /03_ibp_db_backup_/, body: /"in_progress":false/ },
    { name: 'lease back', method: 'PUT', path: /athena_backup_lease/, body: /:free"/ }
  ],
  async run(lane) {
    const reply = await lane.call('POST', '/api/v3/backups')
    const { id } = reply.json as { id: string }
    if (reply.status === 202) await lane.ended()
    else expectClear(reply)
    const { type } = lane.events.at(-1) ?? {}
    return async () => {
      expected ??= await contents(lane)
      const header = (await expectTidy(lane)).find(({ _id }) => _id === id)
      await expectWorking(lane)
      if (reply.status !== 202) return 'failed'
      if (!header) throw new Error('the backup is gone')
      if (header.error === undefined) {
        await expectBackup(lane, id, expected)
        return 'recovered'
      }
      if (type === 'backup_finished') throw new Error(`told as finished, but ${header.error}`)
      if (header.error.length < 5) throw new Error(`not a clear error: "${header.error}"`)
      return 'failed'
    }
  }
}

t.test('a backup through every fault', (t) =>
  runMatrix(t, backup, { ownSources: false, points: process.env.POINTS?.split(',') })
)
