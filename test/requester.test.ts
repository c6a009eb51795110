import t from 'tap'
import type { BackupEvent, BackupSummary } from '../types/index.js'
import { apiOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { poll } from './helpers/poll.js'

type Lines = { event?: string; requester?: object }[]

async function observed(t: Parameters<typeof buildHost>[0], requester: object | undefined) {
  const events: BackupEvent[] = []
  const lines: Lines = []
  const stream = { write: (line: string) => lines.push(JSON.parse(line)) }
  const host = await buildHost(t, {
    server: { logger: { level: 'info', stream } },
    authorize: () => requester,
    onEvent: (event) => void events.push(event)
  })
  return { host, api: apiOf(host), events, lines }
}

t.test('the event, the log line and the backup name the requester', async (t) => {
  const requester = { name: 'a****@example.com', uuid: 'g4zrlQ1TnTqL' }
  const { api, host, events, lines } = await observed(t, requester)
  const id = await api.backup()
  t.match(events[0], { type: 'backup_started', id, requester })
  t.match(
    lines.find(({ event }) => event === 'backup_started'),
    { requester }
  )
  t.strictSame((await host.app.dbBackups.summary(id)).requester, requester)
  const sent = await api.get(id)
  t.strictSame(sent.requester, requester)
  const restored = await api.restore(sent)
  t.match(restored, { status: 'success', by: requester.name, uuid: requester.uuid }, 'it can be uploaded')
  t.match(
    events.find(({ type }) => type === 'restore_started'),
    { requester }
  )
})

t.test('a backup names the requester while it runs and after it has failed', async (t) => {
  const requester = { name: 'somebody' }
  const running: BackupSummary[] = []
  const host = await buildHost(t, {
    authorize: () => requester,
    async onEvent(event) {
      if (event.type === 'backup_started') running.push(await host.app.dbBackups.summary(event.id))
    }
  })
  await host.on.couch.use(host.on.names.sessions).insert({ _id: 'kept' } as object)
  await apiOf(host).backup()
  running.length = 0
  // a backup fails when a database of the last one is missing
  await host.on.couch.db.destroy(host.on.names.sessions)
  const { id } = (await apiOf(host).call('POST')).json()
  const failed = await host.waitForBackup(id)
  t.ok(failed.error)
  t.strictSame(failed.requester, requester)
  await poll('the summary at its start', async () => running[0])
  t.strictSame(running[0]!.requester, requester)
})

t.test('a backup that the host starts has no requester, unless the host names one', async (t) => {
  const { host, api, events, lines } = await observed(t, { name: 'not of these' })
  const backup = async (options?: object) => {
    const { id, finished } = await host.app.dbBackups.start(options)
    await finished
    return id
  }
  for (const options of [undefined, {}, { requester: undefined }, { requester: {} }]) {
    const id = await backup(options)
    t.notOk('requester' in (await host.app.dbBackups.summary(id)))
    t.notOk('requester' in (await api.get(id)))
  }
  for (const told of [...events, ...lines]) t.notOk('requester' in told)
  const id = await backup({ requester: { name: 'the schedule' } })
  t.strictSame((await api.get(id)).requester, { name: 'the schedule' })
})

t.test('name and id alone are kept of what the host gives, and they are cut', async (t) => {
  const secret = 's3cret'
  const given = { name: 'x'.repeat(10_000), uuid: 7, token: secret, roles: [secret], toJSON: undefined }
  const { api, events, lines } = await observed(t, given)
  const id = await api.backup()
  const sent = await api.get(id)
  t.strictSame(sent.requester, { name: `${'x'.repeat(256)}... (10000 characters)`, uuid: '7' })
  const tx = await api.restore(sent)
  t.match(tx, { by: sent.requester!.name, uuid: '7' })
  t.notMatch(JSON.stringify([events, lines, sent, tx]), secret)
})
