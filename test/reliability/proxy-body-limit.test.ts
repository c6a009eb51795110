import nano from 'nano'
import t, { type Test } from 'tap'
import { apiOf, snapshotOf } from '../helpers/api.js'
import { startBodyLimitProxy } from '../helpers/body-limit-proxy.js'
import { compareDatabases, recreate, setupDatabases } from '../helpers/database.js'
import { buildHost, type HostOptions } from '../helpers/host.js'
import { bytesOf, load, seedDocuments } from '../helpers/seed.js'

const KiB = 1024
const MiB = 1024 * KiB

const document = (_id: string, bytes: number) => ({
  _id,
  type: 'fabric-peer',
  text: bytesOf(_id, Math.ceil(bytes * 0.75)).toString('base64')
})
const SMALL = [...seedDocuments({ count: 600, size: KiB })]
const MEDIUM = Array.from({ length: 4 }, (_, i) => document(`medium_${i}`, 0.9 * MiB))
const BIG = document('big', 3 * MiB)
const ATTACHED = {
  _id: 'attached',
  type: 'fabric-peer',
  _attachments: {
    'file.bin': {
      content_type: 'application/octet-stream',
      data: bytesOf('file', 5 * MiB).toString('base64')
    }
  }
}

/** Builds a console whose database is behind a proxy that accepts bodies of up to `limit` bytes. */
async function consoleBehind(t: Test, limit: number, docs: readonly object[], options: HostOptions = {}) {
  const direct = await setupDatabases(t)
  await load(direct.couch.use(direct.names.components), docs, 100)
  const proxy = await startBodyLimitProxy(t, direct.url, {
    limit,
    closing: limit === MiB ? 'at once' : 'lingers'
  })
  const host = await buildHost(t, {
    ...options,
    on: { ...direct, couch: nano(proxy.url), url: proxy.url },
    retry: { wait: 20, longest: 100 }
  })
  return { direct, proxy, host, api: apiOf(host) }
}

/** Backs up, restores by id and from the download into an emptied database, and compares. */
async function roundTrip(t: Test, behind: Awaited<ReturnType<typeof consoleBehind>>) {
  const { direct, api, host } = behind
  const { components } = direct.names
  const before = await direct.fetchAll(components)
  const id = await api.backup()
  const summary = await host.app.dbBackups.summary(id)
  const backup = await api.get(id)
  const unreadable = summary.dbs.athena_components?.unreadable ?? []
  const expected = new Map([...before].filter(([name]) => !unreadable.some(({ id: left }) => left === name)))
  compareDatabases(t, expected, snapshotOf(backup, 'athena_components'), { rev: true })
  for (const source of [id, { dbs: { athena_components: { docs: backup.dbs.athena_components!.docs } } }]) {
    await recreate(direct.couch, components)
    const { status, failures = [], athena_messages } = await api.restore(source)
    t.equal(status, 'success', athena_messages.join(' '))
    t.strictSame(failures, [])
    compareDatabases(t, expected, await direct.fetchAll(components))
  }
  return { id, unreadable }
}

t.test("nginx's default: documents of 1 KB and of 0.9 MB are backed up, restored and divided", async (t) => {
  const behind = await consoleBehind(t, MiB, [...SMALL, ...MEDIUM])
  const { unreadable } = await roundTrip(t, behind)
  t.strictSame(unreadable, [])
  t.strictSame(behind.proxy.refused, [], 'the default is what nginx takes')
  t.ok(behind.proxy.passed.largest <= MiB)
})

t.test('a document and an attachment above the limit are named, the rest is safe', async (t) => {
  const behind = await consoleBehind(t, MiB, [...SMALL.slice(0, 200), ...MEDIUM, BIG, ATTACHED])
  const { id, unreadable } = await roundTrip(t, behind)
  t.strictSame(unreadable.map(({ id: left }) => left).sort(), ['attached', 'big'])
  for (const { reason } of unreadable) {
    t.match(reason, /before CouchDB \(nginx\) answered 413 Payload Too Large|connection was closed/)
    t.match(reason, /client_max_body_size/)
    t.match(reason, /limits\.requestBytes/)
    t.notMatch(reason, /<html|no reason given/i)
  }

  const path = `/${id}/attachments/notes.bin`
  const appended = await behind.api.call('PUT', path, {
    attachment: bytesOf('a', 300 * KiB).toString('base64')
  })
  t.equal(appended.statusCode, 200, appended.body)
  const refused = await behind.api.call('PUT', path, { attachment: bytesOf('a', 3 * MiB).toString('base64') })
  t.equal(refused.statusCode, 413)
  t.match(
    refused.json().message,
    /(gateway before CouchDB answered 413|was closed without an answer); .*client_max_body_size/
  )
  t.notMatch(refused.body, /<html/i)
  t.equal((await behind.api.get(id))._attachments?.['notes.bin']?.length, 546_136, 'as it was')
})

t.test('a limit of 10 MiB takes all of it', async (t) => {
  const behind = await consoleBehind(t, 10 * MiB, [...SMALL.slice(0, 200), ...MEDIUM, BIG, ATTACHED])
  const { unreadable } = await roundTrip(t, behind)
  t.strictSame(unreadable, [])
  t.strictSame(behind.proxy.refused, [])
})

t.test('a limit of 64 KiB is learned by few refusals, and remembered', async (t) => {
  const behind = await consoleBehind(t, 64 * KiB, SMALL)
  const { unreadable } = await roundTrip(t, behind)
  t.strictSame(unreadable, [])
  const learned = behind.proxy.refused.length
  t.ok(learned > 0 && learned <= 24, `${learned} refusals`)
  await behind.api.backup()
  t.equal(behind.proxy.refused.length, learned, 'no request of the next backup is refused')
})

t.test('a limit of 64 KiB that the option names refuses nothing', async (t) => {
  const behind = await consoleBehind(t, 64 * KiB, SMALL, { limits: { requestBytes: 64 * KiB } })
  const { unreadable } = await roundTrip(t, behind)
  t.strictSame(unreadable, [])
  t.strictSame(behind.proxy.refused, [])
})

t.test('documents that a proxy does not take back are named by a restore, and fail no other', async (t) => {
  const behind = await consoleBehind(t, 10 * MiB, [...SMALL.slice(0, 200), ...MEDIUM, BIG, ATTACHED])
  const { direct, api, proxy } = behind
  const before = await direct.fetchAll(direct.names.components)
  const id = await api.backup()
  await recreate(direct.couch, direct.names.components)
  proxy.limit = MiB
  proxy.closing = 'at once'
  const { failures = [] } = await api.restore(id)
  t.strictSame(failures.map(({ id: failed }) => failed).sort(), ['attached', 'big'])
  // the answer may be lost with the connection
  for (const { reason } of failures)
    t.match(reason, /(nginx\) answered 413|was closed \(\w+\)) .*client_max_body_size/)
  for (const name of ['attached', 'big']) before.delete(name)
  compareDatabases(t, before, await direct.fetchAll(direct.names.components))
})
