import { setTimeout as delay } from 'node:timers/promises'
import Fastify from 'fastify'
import type { ServerScope } from 'nano'
import t, { type Test } from 'tap'
import { createMemoryWebhookStore } from '../lib/index.js'
import {
  type ActiveOperation,
  ActiveOperations,
  endClientIn,
  type Resource
} from '../lib/operations/active-operations.js'
import { Databases } from '../lib/operations/databases.js'
import { Instance } from '../lib/operations/instance.js'
import {
  type Failure,
  Lifecycle,
  type NewOperation,
  type OperationRecords
} from '../lib/operations/lifecycle.js'
import { resolveOptions } from '../lib/options.js'
import type { BackupEvent, OperationKind } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { LEASE, setupDatabases, type TestDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

/** Stands for a further member of the public type. */
const COUNT = 'count' as OperationKind

const forever = () => new Promise(() => {})

interface CountRecord {
  status: 'pending' | 'done' | 'failed'
  reason?: string
  documents?: number
}

/** Describes a further kind: one that counts the documents of the components. Its record is a document. */
class Counts implements OperationRecords {
  readonly #databases: Databases
  /** Ids of those whose lease is about to be given back, and of those for which it was. */
  readonly released: string[] = []

  constructor(databases: Databases) {
    this.#databases = databases
  }

  describe(id: string, wait: () => Promise<unknown>): NewOperation<number> {
    const { system } = this.#databases
    const event = (type: string, more?: object) => ({ type, id, ...more }) as unknown as BackupEvent
    return {
      kind: COUNT,
      idAfter: () => ({ id }),
      prepare: async (operation) => {
        await system.on(endClientIn(operation, 'sources')).put({ _id: id, status: 'pending' })
        return true
      },
      work: async ({ workClient }) => {
        await wait()
        const { components } = this.#databases.sourcesOn(workClient)
        const { doc_count: documents } = await components.info()
        await system.on(workClient).modify(id, (record) => ({ ...record, status: 'done', documents }))
        return documents
      },
      started: () => event('count_started'),
      finished: (_id, ended, documents) => event('count_finished', { ...ended, documents }),
      failed: (_id, ended, error) => event('count_failed', { ...ended, error })
    }
  }

  async isOver({ id }: { id: string }): Promise<boolean> {
    const record = await this.#databases.system.get<CountRecord>(id)
    return record !== null && record.status !== 'pending'
  }

  async recordFailure(operation: ActiveOperation, resource: Resource, { reason }: Failure): Promise<void> {
    if (resource !== 'sources') return
    const system = this.#databases.system.on(endClientIn(operation, 'sources'))
    await system.modify<CountRecord>(operation.id, (record) => {
      return record?.status === 'pending' ? { ...record, status: 'failed', reason } : null
    })
  }

  async beforeRelease({ id }: { id: string }): Promise<() => Promise<void>> {
    this.released.push(`before ${id}`)
    return async () => void this.released.push(`after ${id}`)
  }
}

/** Makes an instance that knows the further kind, and no other. */
function setup(t: Test, { couch, names }: TestDatabases) {
  const events: BackupEvent[] = []
  const options = resolveOptions({
    couch,
    databases: names,
    authorize: () => undefined,
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => undefined,
    timeouts: { lease: 2000 },
    onEvent: (event) => void events.push(event)
  })
  const instance = new Instance(options, Fastify().log)
  t.teardown(() => instance.close())
  const databases = new Databases({ ...names, backups: names.system }, instance)
  const active = new ActiveOperations(instance, databases, async () => {})
  const counts = new Counts(databases)
  const kinds = { [COUNT]: counts } as unknown as Record<OperationKind, OperationRecords>
  return { lifecycle: new Lifecycle(instance, active, databases, kinds), active, counts, events }
}

const leaseOf = (couch: ServerScope, names: TestDatabases['names']) =>
  couch.use<{ operation?: string; id?: string; newest?: string }>(names.system).get(LEASE)

t.test('a further kind of operation runs by its description alone', async (t) => {
  const on = await setupDatabases(t)
  const { couch, names } = on
  await couch.use(names.components).bulk({ docs: [{ _id: 'a' }, { _id: 'b' }] })
  const { app, ...host } = await buildHost(t, { on })
  const backup = await apiOf({ app, ...host }).backup()
  const { newest } = await leaseOf(couch, names)

  const { lifecycle, counts, events } = setup(t, on)
  let goOn = () => {}
  const wait = new Promise<void>((resolve) => {
    goOn = resolve
  })
  const { id, finished } = await lifecycle.run(counts.describe('count_1', () => wait))
  t.match(await leaseOf(couch, names), { operation: 'count', id, newest }, 'the number is handed on')
  t.match(
    (await apiOf({ app, ...host }).call('POST')).json(),
    { message: 'count_in_progress' },
    'an instance that does not know the kind begins nothing'
  )
  goOn()
  t.equal(await finished, 2)
  t.match(await couch.use(names.system).get(id), { status: 'done', documents: 2 })
  await poll('the end', () => (counts.released.length === 2 ? true : undefined))
  t.strictSame(counts.released, ['before count_1', 'after count_1'])

  const broken = await lifecycle.run(counts.describe('count_2', () => Promise.reject(new Error('no count'))))
  await t.rejects(broken.finished, { message: 'no count' })
  t.match(await couch.use(names.system).get('count_2'), { status: 'failed', reason: 'no count' })
  t.strictSame(
    events.map(({ type }) => String(type)),
    ['count_started', 'count_finished', 'count_started', 'count_failed']
  )
  t.ok((await apiOf({ app, ...host }).backup()) > backup, 'backups go on after it')
})

t.test('one that died is ended by an instance that knows its kind', async (t) => {
  const on = await setupDatabases(t)
  const first = setup(t, on)
  const { id, finished } = await first.lifecycle.run(first.counts.describe('count_1', forever))
  finished.catch(() => undefined)
  first.active.abandonAll()
  const { lifecycle, counts, events } = setup(t, on)
  await poll('the take-over', async () => ((await lifecycle.recover()) === undefined ? true : undefined))
  t.match(await on.couch.use(on.names.system).get(id), {
    status: 'failed',
    reason: /^interrupted: .* while the count was running/
  })
  t.strictSame(
    events.map(({ type }) => type),
    ['lease_taken_over', 'recovered']
  )
  await poll('the end', () => (counts.released.length === 2 ? true : undefined))
})

t.test('one that died does not keep instances away for ever that do not know its kind', async (t) => {
  const on = await setupDatabases(t)
  const { lifecycle, counts, active } = setup(t, on)
  await lifecycle.run(counts.describe('count_1', forever))
  active.abandonAll()
  const host = await buildHost(t, { on, timeouts: { lease: 2000 } })
  t.match((await apiOf(host).call('POST')).json(), { message: 'count_in_progress' })
  await delay(2500)
  t.match(await apiOf(host).backup(), /^03_ibp/)
  t.match(await on.couch.use(on.names.system).get('count_1'), { status: 'pending' }, 'its record is left')
})
