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
  type Operation,
  type Rig,
  TAKEOVER,
  transaction
} from './fault-cells.js'
import { WRITE_FAULTS } from './fault-proxy.js'
import { txIdOf } from './host.js'
import { poll } from './poll.js'

const backups = '/api/v3/backups'

/** Describes a request that reads before anything is written, so that no replica can be behind. */
const reading = <P extends object>(point: P) => ({ except: [...WRITE_FAULTS, 'stale'] as const, ...point })
const writing = <P extends object>(point: P) => ({ except: ['stale'] as const, ...point })
/** Describes a request that reads what was written before. */
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

/** The contents of the source databases at first. Restores bring them back to it. */
const held = new WeakMap<Rig, Contents>()

async function expected(rig: Rig): Promise<Contents> {
  const known = held.get(rig) ?? (await contents(rig))
  held.set(rig, known)
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
  async run(rig) {
    const reply = await rig.call('POST', backups)
    const { id } = reply.json as { id: string }
    if (reply.status === 202) await rig.ended()
    else expectClear(reply)
    const { type } = rig.events.at(-1) ?? {}
    return async () => {
      const header = (await expectTidy(rig)).find(({ _id }) => _id === id)
      await expectWorking(rig)
      if (reply.status !== 202) return 'failed'
      if (!header) throw new Error('the backup is gone')
      if (header.error === undefined) {
        await expectBackup(rig, id, await expected(rig))
        return 'recovered'
      }
      if (type === 'backup_finished') throw new Error(`reported as finished, but ${header.error}`)
      if (header.error.length < 5) throw new Error(`not a clear error: "${header.error}"`)
      return 'failed'
    }
  }
}

/** The backup of each rig's databases that was made before any fault. */
const made = new WeakMap<Rig, { id: string; body: Buffer }>()

async function madeBackup(rig: Rig): Promise<{ id: string; body: Buffer }> {
  const known = made.get(rig)
  if (known) return known
  await expected(rig)
  await expectWorking(rig)
  const [{ _id: id }] = await expectTidy(rig)
  const { json } = await rig.call('GET', `${backups}/${id}`)
  const backup = { id, body: Buffer.from(JSON.stringify(json)) }
  made.set(rig, backup)
  return backup
}

async function restoreInto(
  rig: Rig,
  start: () => Promise<HttpReply>
): Promise<() => Promise<'recovered' | 'failed'>> {
  const reply = await start()
  const { url } = (reply.json ?? {}) as { url?: string }
  if (reply.status === 202) await rig.ended()
  else expectClear(reply)
  const { type } = rig.events.at(-1) ?? {}
  return async () => {
    const id = url && txIdOf(url)
    const ended = id && (await poll('the transaction', () => transaction(rig, id), TAKEOVER))
    await expectTidy(rig)
    await expectWorking(rig)
    if (!ended) return 'failed'
    if (ended.status === 'success') {
      const problem = differences(await expected(rig), await contents(rig))
      if (problem) throw new Error(`FALSE SUCCESS: ${problem}`)
      return 'recovered'
    }
    if (type === 'restore_finished') throw new Error('reported as finished, but the transaction says error')
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

async function prepareRestore(rig: Rig): Promise<void> {
  await madeBackup(rig)
  await damage(rig)
}

export const restoreStored: Operation = {
  name: 'restore by id',
  points: (names) => [
    ...restorePoints(names).map((point) => ({ ...point, core: point.name === 'write' })),
    reading({ name: 'read header', method: 'GET', path: /\/03_ibp_db_backup_/ }),
    reading({ name: 'read chunk', core: true, method: 'GET', path: /backup_chunk_/ })
  ],
  prepare: prepareRestore,
  async run(rig) {
    const { id } = await madeBackup(rig)
    return restoreInto(rig, () => rig.call('PUT', `${backups}/${id}`, {}))
  }
}

export const restoreUpload: Operation = {
  name: 'restore by body',
  // the revisions of an upload are not looked up in the database
  points: (names) => restorePoints(names).filter(({ name }) => name !== 'revisions'),
  prepare: prepareRestore,
  async run(rig) {
    const { body } = await madeBackup(rig)
    return restoreInto(rig, () => rig.call('PUT', backups, body))
  }
}

export const append: Operation = {
  name: 'append',
  points: () => [
    writing(anyCall),
    reading({ name: 'read header', method: 'GET', path: /\/03_ibp_db_backup_/ }),
    writing({ name: 'write', core: true, method: 'PUT', path: /\/03_ibp_db_backup_[0-9]+\/a/ })
  ],
  prepare: async (rig) => void (await madeBackup(rig)),
  async run(rig) {
    const { id } = await madeBackup(rig)
    const attachment = `of ${Math.random()}`
    const reply = await rig.call('PUT', `${backups}/${id}/attachments/a`, { attachment })
    if (reply.status !== 200) expectClear(reply)
    return async () => {
      const { json } = await rig.call('GET', `${backups}/${id}`)
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
  async prepare(rig) {
    if (made.has(rig)) return
    const { id } = await madeBackup(rig)
    await rig.call('PUT', `${backups}/${id}/attachments/a`, { attachment: 'of a client '.repeat(100) })
    const { json } = await rig.call('GET', `${backups}/${id}`)
    made.set(rig, { id, body: Buffer.from(JSON.stringify(json)) })
  },
  async run(rig) {
    const { id, body } = await madeBackup(rig)
    const reply = await rig.call('GET', `${backups}/${id}`)
    return async () => {
      if (reply.status !== 200) {
        expectClear(reply)
        return 'failed'
      }
      // status and headers were sent before the fault, so that only the cut shows it
      if (reply.json === undefined) return 'failed'
      if (JSON.stringify(reply.json) !== body.toString()) throw new Error('FALSE SUCCESS: another backup')
      return 'recovered'
    }
  }
}

export const list: Operation = {
  name: 'list',
  points: () => [reading({ ...anyCall, core: true })],
  prepare: async (rig) => void (await madeBackup(rig)),
  async run(rig) {
    const { id } = await madeBackup(rig)
    const reply = await rig.call('GET', backups)
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
