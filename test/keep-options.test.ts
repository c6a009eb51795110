import Fastify from 'fastify'
import nano from 'nano'
import t, { type Test } from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { resolveOptions } from '../lib/options.js'
import { checkKeep } from '../lib/retention/check-keep.js'
import type { DbBackupsOptions } from '../types/index.js'

const optionsWith = (options: object): DbBackupsOptions =>
  ({
    couch: nano('http://127.0.0.1:9'),
    databases: { components: 'a', sessions: 'b', system: 'c' },
    authorize: () => {},
    webhooks: createMemoryWebhookStore(),
    rebuildWhitelist: () => {},
    ...options
  }) as DbBackupsOptions

async function register(t: Test, options: object): Promise<void> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(dbBackups, optionsWith(options))
}

const EMPTY = 'must have a rule that keeps something'
/** Rules that are refused, with the member that is named and what is said of it. */
const REFUSED: [keep: unknown, member: string, says: string][] = [
  [{}, '', EMPTY],
  [{ timezone: 'UTC' }, '', EMPTY],
  [{ last: 0, within: '0y0d' }, '', EMPTY],
  [{ daily: undefined }, '', EMPTY],
  [null, '', 'must be "athena" or an object of rules'],
  ['restic', '', 'must be "athena" or an object of rules'],
  [[], '', 'must be "athena" or an object of rules'],
  [7, '', 'must be "athena" or an object of rules'],
  [{ last: -1 }, 'last', 'greater or equal to 0'],
  [{ hourly: 1.5 }, 'hourly', 'integer'],
  [{ daily: '7' }, 'daily', 'integer'],
  [{ weekly: Number.NaN }, 'weekly', 'integer'],
  [{ monthly: null }, 'monthly', 'integer'],
  [{ yearly: 100_001 }, 'yearly', '100000'],
  [{ dayly: 7 }, 'dayly', 'unexpected property'],
  [{ within: '7' }, 'within', 'must be text such as "1y5m7d2h"'],
  [{ within: '' }, 'within', 'must be text'],
  [{ within: '1w' }, 'within', 'must be text'],
  [{ within: '7d1y' }, 'within', 'must be text'],
  [{ within: '-7d' }, 'within', 'must be text'],
  [{ within: ' 7d' }, 'within', 'must be text'],
  [{ within: '1000y' }, 'within', 'must be text'],
  [{ within: 7 }, 'within', 'must be text'],
  [{ last: 1, timezone: 'Europe/Atlantis' }, 'timezone', 'must be a time zone'],
  [{ last: 1, timezone: '' }, 'timezone', 'must be a time zone'],
  [{ last: 1, timezone: 1 }, 'timezone', 'string']
]

const ACCEPTED: unknown[] = [
  'athena',
  { last: 1 },
  { daily: 7, weekly: 4, monthly: 12, yearly: 100_000, hourly: 0, last: undefined },
  { within: '999y9999m99999d999999h' },
  { within: '1y2h' },
  { last: 0, within: '0y1h', timezone: 'America/St_Johns' }
]

t.test('rules that are wrong, or keep nothing, end the registration by the name of the option', async (t) => {
  for (const [keep, member, says] of REFUSED) {
    const option = member ? `keep.${member}` : 'keep'
    const error = await register(t, { keep }).then(
      () => undefined,
      (error: Error) => error
    )
    const { name, message } = error ?? new Error('nothing was refused')
    t.equal(name, 'TypeError', option)
    t.ok(message.includes(`option "${option}" `), message)
    t.ok(message.includes(says), message)
  }
  for (const keep of ACCEPTED) await t.resolves(register(t, { keep }))
})

t.test('a call refuses the same rules, and names the member', async (t) => {
  for (const [keep, member, says] of REFUSED) {
    try {
      checkKeep(keep)
      t.fail(JSON.stringify(keep))
    } catch (error) {
      const { code, message } = error as Error & { code: string }
      t.equal(code, 'DB_BACKUPS_INVALID_PARAMETER')
      t.ok(message.startsWith(`options/keep${member && `/${member}`}: `), message)
      t.ok(message.includes(says), message)
    }
  }
  for (const keep of ACCEPTED) t.doesNotThrow(() => checkKeep(keep))
})

t.test('failed backups are kept for seven days unless the option says other', async (t) => {
  const DAY = 24 * 3_600_000
  t.equal(resolveOptions(optionsWith({})).keepFailed, 7 * DAY)
  t.equal(resolveOptions(optionsWith({})).keep, undefined)
  for (const keepFailed of [0, 1, 3653 * DAY])
    t.equal(resolveOptions(optionsWith({ keepFailed })).keepFailed, keepFailed)
  for (const keepFailed of [-1, 0.5, '7d', null, 3653 * DAY + 1])
    await t.rejects(register(t, { keepFailed }), { name: 'TypeError', message: /option "keepFailed"/ })
})
