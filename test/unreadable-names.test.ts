import t from 'tap'
import { unreadDocuments } from '../lib/diff/unread.js'
import { unreadableIds } from '../lib/format/about-database.js'
import { allUnreadable } from '../lib/repository/unreadable.js'

const named = (id: string) => ({ id, reason: 'it failed' })

t.test('restores, diffs and bases agree on which backups name all that they could not read', async (t) => {
  const whole = [{}, { unreadable_count: 0 }, { unreadable_count: 1, unreadable: [named('a')] }]
  const more = { unreadable: [named('a'), named('b')] }
  for (const about of [...whole, more]) {
    const ids = (about.unreadable ?? []).map(({ id }) => id)
    t.strictSame(
      allUnreadable(about)?.map(({ id }) => id),
      ids
    )
    t.strictSame(unreadableIds(about), ids)
    t.strictSame(
      unreadDocuments('x', about).map(({ id }) => id),
      ids
    )
  }
  for (const about of [
    { unreadable_count: 1 },
    { unreadable_count: 2, unreadable: [named('a')] },
    { unreadable_count: 1, unreadable: [{ ...named('a'), id_truncated: true }] }
  ]) {
    t.equal(allUnreadable(about), undefined)
    t.throws(() => unreadableIds(about), { code: 'DB_BACKUPS_NOT_RESTORABLE' })
    t.throws(() => unreadDocuments('x', about), { code: 'DB_BACKUPS_NOT_COMPARABLE' })
  }
})
