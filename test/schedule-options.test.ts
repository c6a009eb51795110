import Fastify from 'fastify'
import nano from 'nano'
import t from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { resolveOptions } from '../lib/options.js'
import type { DbBackupsOptions } from '../types/index.js'

const given = (schedule: unknown) =>
  ({
    couch: nano('http://127.0.0.1:9'),
    databases: { components: 'a', sessions: 'b', system: 'c' },
    authorize: () => {},
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => {},
    schedule
  }) as unknown as DbBackupsOptions

const MINUTE = 60_000
const NIGHTLY = '0 1 * * *'

/** Schedules that cannot work, with what the message must say. */
const REFUSED: Record<string, [schedule: unknown, message: RegExp]> = {
  'another preset': ['nightly', /"schedule" must be an object or "athena"$/],
  null: [null, /"schedule" /],
  'no expression': [{}, /"schedule\.cron" /],
  'an empty expression': [{ cron: '' }, /"schedule\.cron" /],
  'an expression that is none': [
    { cron: 'at night' },
    /"schedule\.cron" must be a cron expression of five fields/
  ],
  'four fields': [{ cron: '0 1 * *' }, /"schedule\.cron" must be a cron expression of five fields/],
  'a field of seconds': [
    { cron: '0 0 1 * * *' },
    /"schedule\.cron" must be a cron expression of five fields/
  ],
  'a field of years': [
    { cron: '0 0 1 * * * 2030' },
    /"schedule\.cron" must be a cron expression of five fields/
  ],
  'a minute that no hour has': [{ cron: '61 * * * *' }, /"schedule\.cron" .*minute/],
  'an event': [{ cron: '@reboot' }, /"schedule\.cron" /],
  'a date': [{ cron: '2030-01-01T00:00:00' }, /"schedule\.cron" must be a cron expression, not a date/],
  'a day that never comes': [{ cron: '0 0 30 2 *' }, /"schedule\.cron" never comes/],
  'a time zone that is not known': [
    { cron: NIGHTLY, timezone: 'Mars/Olympus' },
    /"schedule\.timezone" .*Mars\/Olympus/
  ],
  'an empty time zone': [{ cron: NIGHTLY, timezone: '' }, /"schedule\.timezone" /],
  'a negative jitter': [{ cron: NIGHTLY, jitter: -1 }, /"schedule\.jitter" /],
  'a broken jitter': [{ cron: NIGHTLY, jitter: 1.5 }, /"schedule\.jitter" /],
  'a jitter as long as the interval': [
    { cron: '*/10 * * * *', jitter: 10 * MINUTE },
    /"schedule\.jitter" must be shorter than the time between two runs, 600000 ms/
  ],
  'a jitter longer than the shortest interval': [
    { cron: '0,5 1 * * *', jitter: 6 * MINUTE },
    /"schedule\.jitter" /
  ],
  'an age that is no number': [{ cron: NIGHTLY, unlessYoungerThan: '12h' }, /"schedule\.unlessYoungerThan" /],
  'an age of more than a year': [
    { cron: NIGHTLY, unlessYoungerThan: 367 * 24 * 60 * MINUTE },
    /"schedule\.unlessYoungerThan" /
  ],
  'a member that is not known': [{ cron: NIGHTLY, timeZone: 'UTC' }, /"schedule\.timeZone" /],
  'a list of expressions': [[NIGHTLY], /"schedule" must be an object or "athena"$/],
  'another preset of verifications': [
    { cron: NIGHTLY, verify: 'hourly' },
    /"schedule\.verify" must be an object, "daily", "weekly", or "monthly"$/
  ],
  'another depth': [
    { cron: NIGHTLY, verify: { cron: NIGHTLY, depth: 'all' } },
    /"schedule\.verify\.depth" must be "structure", "data", or "restore"$/
  ]
}

t.test('a schedule that cannot work is refused at registration, by its name', async (t) => {
  for (const [what, [schedule, message]] of Object.entries(REFUSED)) {
    const app = Fastify()
    t.teardown(() => app.close())
    const registered = (async () => app.register(dbBackups, given(schedule)))()
    await t.rejects(registered, { name: 'TypeError', message }, what)
  }
})

t.test('what is left out has a default, and athena’s is a preset', async (t) => {
  const resolved = (schedule: unknown) => resolveOptions(given(schedule)).schedule
  const defaults = { timezone: 'UTC', jitter: 0, unlessYoungerThan: 0 }
  t.equal(resolved(undefined), undefined)
  t.strictSame(resolved({ cron: NIGHTLY }), { cron: NIGHTLY, ...defaults })
  t.strictSame(resolved({ cron: NIGHTLY, timezone: undefined }), { cron: NIGHTLY, ...defaults })
  const all = { cron: '0 */6 * * 1-5', timezone: 'Europe/Berlin', jitter: 5, unlessYoungerThan: 7 }
  t.strictSame(resolved(all), all)
  t.strictSame(resolved('athena'), {
    cron: NIGHTLY,
    timezone: 'UTC',
    jitter: 10 * MINUTE,
    unlessYoungerThan: 12 * 60 * MINUTE
  })
  for (const cron of ['@daily', '0 1 * * MON', '0 1 L * *', '59 23 29 2 *', '* * * * *'])
    t.match(resolved({ cron }), { cron })
})
