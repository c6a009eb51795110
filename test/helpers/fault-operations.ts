import {
  type Contents,
  contents,
  damage,
  differences,
  expectBackup,
  expectClear,
  expectTidy,
  expectWorking,
  type HttpReply,
  type Lane,
  type Operation,
  TAKEOVER,
  transaction
} from './fault-cells.js'
import { WRITE_FAULTS } from './fault-proxy.js'
import { poll } from './poll.js'

const backups = '/api/v3/backups'

/** Nothing is written before these are read: no copy is behind. */
const reading = <P extends object>(point: P) => ({ except: [...WRITE_FAULTS, 'stale'] as const, ...point })
const writing = <P extends object>(point: P) => ({ except: ['stale'] as const, ...point })
/** What was written before is read. */
const readingAgain = <P extends object>(point: P) => ({ except: WRITE_FAULTS, ...point })
const onlyStale = <P extends object>(point: P) => ({ only: ['stale'] as const, method: 'GET', ...point })

const lease = writing({ name: 'lease', method: 'PUT', path: /athena_backup_lease/ })
const leaseRead = reading({ name: 'lease read', path: /_bulk_get/, body: /athena_backup_lease/ })
const leaseBack = writing({
  name: 'lease back',
  method: 'PUT',
  path: /athena_backup_lease/,
  body: /^{"claim"/
})
const NOT_LEASE = /^(?!.*athena_backup_lease)/s
const anyCall = { name: 'any call', path: /./ }

/** What the sources hold. Nothing changes them but restores, which bring them back to it. */
const held = new WeakMap<Lane, Contents>()

async function expected(lane: Lane): Promise<Contents> {
  const known = held.get(lane) ?? (await contents(lane))
  held.set(lane, known)
  return known
}

export const backup: Operation = {
  name: 'backup',
  points: (names) => [
    anyCall,
    lease,
    leaseRead,
    writing({ name: 'header', method: 'PUT', path: /03_ibp_db_backup_/ }),
    reading({ name: 'changes', core: true, path: /_changes/ }),
    reading({ name: 'attachments', path: /_bulk_get/, body: NOT_LEASE }),
    writing({ name: 'place', method: 'POST', path: new RegExp(`^/${names.backups}/_bulk_docs`) }),
    writing({ name: 'chunk', core: true, method: 'PUT', path: /backup_chunk_/ }),
    readingAgain({ name: 'look', method: 'GET', path: /backup_chunk_[^/]*$/ }),
    readingAgain({ name: 'check', method: 'GET', path: new RegExp(`^/${names.backups}/_all_docs`) }),
    writing({
      name: 'end',
      core: true,
      method: 'PUT',
      path: /03_ibp_db_backup_/,
      body: /"in_progress":false/
    }),
    leaseBack
  ],
  async run(lane) {
    const reply = await lane.call('POST', backups)
    const { id } = reply.json as { id: string }
    if (reply.status === 202) await lane.ended()
    else expectClear(reply)
    const { type } = lane.events.at(-1) ?? {}
    return async () => {
      const header = (await expectTidy(lane)).find(({ _id }) => _id === id)
      await expectWorking(lane)
      if (reply.status !== 202) return 'failed'
      if (!header) throw new Error('the backup is gone')
      if (header.error === undefined) {
        await expectBackup(lane, id, await expected(lane))
        return 'recovered'
      }
      if (type === 'backup_finished') throw new Error(`told as finished, but ${header.error}`)
      if (header.error.length < 5) throw new Error(`not a clear error: "${header.error}"`)
      return 'failed'
    }
  }
}

/** A backup of the lane's databases, made before any fault. */
const made = new WeakMap<Lane, { id: string; body: Buffer }>()

async function madeBackup(lane: Lane): Promise<{ id: string; body: Buffer }> {
  const known = made.get(lane)
  if (known) return known
  await expected(lane)
  await expectWorking(lane)
  const [{ _id: id }] = await expectTidy(lane)
  const { json } = await lane.call('GET', `${backups}/${id}`)
  const backup = { id, body: Buffer.from(JSON.stringify(json)) }
  made.set(lane, backup)
  return backup
}

async function restoreInto(
  lane: Lane,
  start: () => Promise<HttpReply>
): Promise<() => Promise<'recovered' | 'failed'>> {
  const reply = await start()
  const { url } = (reply.json ?? {}) as { url?: string }
  if (reply.status === 202) await lane.ended()
  else expectClear(reply)
  const { type } = lane.events.at(-1) ?? {}
  return async () => {
    const id = url?.slice(url.lastIndexOf('/') + 1)
    const ended = id && (await poll('the transaction', () => transaction(lane, id), TAKEOVER))
    await expectTidy(lane)
    await expectWorking(lane)
    if (!ended) return 'failed'
    if (ended.status === 'success') {
      const problem = differences(await expected(lane), await contents(lane))
      if (problem) throw new Error(`FALSE SUCCESS: ${problem}`)
      return 'recovered'
    }
    if (type === 'restore_finished') throw new Error('told as finished, but the transaction says error')
    if ((ended.athena_messages.at(-1) ?? '').length < 5) throw new Error('the transaction does not tell why')
    return 'failed'
  }
}

const transactions = (names: { backups: string }) => new RegExp(`^/${names.backups}/[0-9a-f]{32}$`)
const restorePoints = (names: { backups: string; components: string; sessions: string; system: string }) => {
  const targets = `^/(${names.components}|${names.sessions}|${names.system})`
  return [
    anyCall,
    lease,
    leaseRead,
    writing({ name: 'transaction', method: 'PUT', path: transactions(names) }),
    onlyStale({ name: 'transaction read', path: transactions(names) }),
    writing({ name: 'step', method: 'PUT', path: transactions(names), nth: 2 }),
    reading({ name: 'scan', path: new RegExp(`${targets}/_all_docs`) }),
    reading({ name: 'revisions', path: /_revs_diff/ }),
    reading({ name: 'compare', path: /_bulk_get/, body: NOT_LEASE }),
    writing({ name: 'write', path: new RegExp(`${targets}/_bulk_docs`) }),
    writing({
      name: 'end',
      method: 'PUT',
      path: transactions(names),
      body: /"status":"(success|error)"/
    }),
    leaseBack
  ]
}

async function prepareRestore(lane: Lane): Promise<void> {
  await madeBackup(lane)
  await damage(lane)
}

export const restoreStored: Operation = {
  name: 'restore by id',
  points: (names) => [
    ...restorePoints(names).map((point) => ({ ...point, core: point.name === 'write' })),
    reading({ name: 'read header', method: 'GET', path: /\/03_ibp_db_backup_/ }),
    reading({ name: 'read chunk', core: true, method: 'GET', path: /backup_chunk_/ })
  ],
  prepare: prepareRestore,
  async run(lane) {
    const { id } = await madeBackup(lane)
    return restoreInto(lane, () => lane.call('PUT', `${backups}/${id}`, {}))
  }
}

export const restoreUpload: Operation = {
  name: 'restore by body',
  // Whether the database had an upload's revisions once is not asked.
  points: (names) => restorePoints(names).filter(({ name }) => name !== 'revisions'),
  prepare: prepareRestore,
  async run(lane) {
    const { body } = await madeBackup(lane)
    return restoreInto(lane, () => lane.call('PUT', backups, body))
  }
}

export const append: Operation = {
  name: 'append',
  points: () => [
    writing(anyCall),
    reading({ name: 'read header', method: 'GET', path: /\/03_ibp_db_backup_/ }),
    writing({ name: 'write', core: true, method: 'PUT', path: /\/03_ibp_db_backup_[0-9]+\/a/ })
  ],
  prepare: async (lane) => void (await madeBackup(lane)),
  async run(lane) {
    const { id } = await madeBackup(lane)
    const attachment = `of ${Math.random()}`
    const reply = await lane.call('PUT', `${backups}/${id}/attachments/a`, { attachment })
    if (reply.status !== 200) expectClear(reply)
    return async () => {
      const { json } = await lane.call('GET', `${backups}/${id}`)
      const { _attachments } = json as { _attachments?: Record<string, string> }
      const stored = Buffer.from(_attachments?.a ?? '', 'base64').toString()
      if (reply.status !== 200) return 'failed'
      if (stored !== attachment) throw new Error(`FALSE SUCCESS: the attachment is "${stored}"`)
      return 'recovered'
    }
  }
}

export const get: Operation = {
  name: 'get',
  points: () => [
    reading(anyCall),
    reading({ name: 'header', method: 'GET', path: /\/03_ibp_db_backup_[0-9]+(\?|$)/ }),
    reading({ name: 'chunk', core: true, method: 'GET', path: /backup_chunk_/ }),
    reading({ name: 'attachment', method: 'GET', path: /\/03_ibp_db_backup_[0-9]+\/a/ })
  ],
  async prepare(lane) {
    if (made.has(lane)) return
    const { id } = await madeBackup(lane)
    await lane.call('PUT', `${backups}/${id}/attachments/a`, { attachment: 'of a client '.repeat(100) })
    const { json } = await lane.call('GET', `${backups}/${id}`)
    made.set(lane, { id, body: Buffer.from(JSON.stringify(json)) })
  },
  async run(lane) {
    const { id, body } = await madeBackup(lane)
    const reply = await lane.call('GET', `${backups}/${id}`)
    return async () => {
      if (reply.status !== 200) {
        expectClear(reply)
        return 'failed'
      }
      // status and headers were sent before the fault: the cut reply tells
      if (reply.json === undefined) return 'failed'
      if (JSON.stringify(reply.json) !== body.toString()) throw new Error('FALSE SUCCESS: another backup')
      return 'recovered'
    }
  }
}

export const list: Operation = {
  name: 'list',
  points: () => [reading({ ...anyCall, core: true })],
  prepare: async (lane) => void (await madeBackup(lane)),
  async run(lane) {
    const { id } = await madeBackup(lane)
    const reply = await lane.call('GET', backups)
    return async () => {
      if (reply.status !== 200) {
        expectClear(reply)
        return 'failed'
      }
      const { ids } = reply.json as { ids?: string[] }
      if (ids?.length !== 1 || ids[0] !== id) throw new Error(`FALSE SUCCESS: ${JSON.stringify(ids)}`)
      return 'recovered'
    }
  }
}
