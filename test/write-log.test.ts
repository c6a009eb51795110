import fc from 'fast-check'
import t from 'tap'
import { WriteLog } from '../lib/restore/write-log.js'
import { cases } from './helpers/settings.js'

const REVISIONS = ['1-a', '2-b', '2-c']
const rev = fc.constantFrom(...REVISIONS)
const counted = fc.constantFrom('create' as const, 'change' as const, 'leave' as const)
const id = fc.nat(4).map(String)

interface Noted {
  counted: 'create' | 'change' | 'leave'
  rev: string | undefined
  unconfirmed: boolean
}

t.test('tells which documents have to be looked at, as a map does', async (t) => {
  const noted = fc.dictionary(id, fc.tuple(counted, fc.option(rev, { nil: undefined })))
  const row = fc.record({ id, rev: fc.option(rev, { nil: undefined }), alone: fc.boolean() })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(noted, fc.array(row, { maxLength: 30 }), (all, feed) => {
        const log = new WriteLog(0)
        const model = new Map<string, Noted>()
        for (const [id, [counted, rev]] of Object.entries(all)) {
          log.note(id, counted, rev)
          model.set(id, { counted, rev, unconfirmed: counted !== 'leave' })
        }
        for (const { id, rev, alone } of feed) {
          log.shows(id, rev, alone)
          const found = model.get(id)
          if (!found) continue
          const isAt = rev !== undefined && rev === found.rev
          if (found.counted === 'leave') found.unconfirmed = !isAt
          else if (isAt && (alone || found.counted === 'change')) found.unconfirmed = false
        }
        const left = [...model.values()].filter(({ unconfirmed }) => unconfirmed)
        return (
          log.unconfirmed === left.length &&
          ['0', '1', '2', '3', '4'].every((id) => {
            const found = model.get(id)
            return (
              log.isUnconfirmed(id) === (found?.unconfirmed ?? false) &&
              log.countedAs(id) === (found?.counted ?? 'create') &&
              REVISIONS.every((rev) => log.isOf(id, rev) === (found?.rev === rev))
            )
          })
        )
      }),
      { numRuns: cases(500) }
    )
  )
})

t.test('beside a document go all versions where it was created, else those that were written', async (t) => {
  const log = new WriteLog(0)
  for (const counted of ['create', 'change', 'leave'] as const) log.note(counted, counted, '1-a')
  const removed = (id: string, own?: string[]) => log.toRemove(id, REVISIONS, own).map(({ rev }) => rev)
  t.strictSame(removed('create'), REVISIONS)
  t.strictSame(removed('not noted'), REVISIONS)
  for (const id of ['change', 'leave']) {
    t.strictSame(removed(id), ['1-a'])
    t.strictSame(removed(id, ['2-c']), ['1-a', '2-c'])
  }
})
