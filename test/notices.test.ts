import nano from 'nano'
import t from 'tap'
import { CouchClient, ONCE } from '../lib/couch/client.js'
import { connectionTo } from '../lib/couch/connection.js'
import { CouchDatabase } from '../lib/couch/database.js'
import { Notices } from '../lib/lease/notices.js'
import { setupDatabases } from './helpers/database.js'
import { startFaultProxy } from './helpers/fault-proxy.js'

t.test(
  'a notice that another instance has removed is gone; one that cannot be removed is told',
  async (t) => {
    const { url, names } = await setupDatabases(t)
    const proxy = await startFaultProxy(url)
    t.teardown(() => proxy.close())
    const couch = nano(proxy.url)
    const settings = { connect: () => connectionTo(couch), retry: ONCE, control: 30_000, idle: 30_000 }
    const notices = new Notices(new CouchDatabase(new CouchClient(settings), names.system))
    await notices.add('a')
    await notices.add('a')
    t.strictSame(await notices.list(), ['a'])
    for (const [fault, status] of [
      ['conflict_storm', 409],
      ['status_401', 401]
    ] as const) {
      const rule = proxy.add({ fault, method: 'DELETE' })
      const removed = notices.remove('a')
      if (status === 409) await t.resolves(removed)
      else await t.rejects(removed, { name: 'CouchError', status } as object as Error)
      t.equal(rule.hits, 1, fault)
    }
    await notices.remove('a')
    await notices.remove('a')
    t.strictSame(await notices.list(), [])
  }
)
