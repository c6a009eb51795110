import fc from 'fast-check'
import t from 'tap'
import { newBackupId } from '../lib/repository/ids.js'

const PREFIX = '03_ibp_db_backup_'
/** Ids have 20 digits at most. */
const LAST = 10n ** 20n - 1n
const stampOf = (id: string) => BigInt(id.slice(PREFIX.length))

t.test('a new id is later than any before, whatever the clock says', async (t) => {
  const stamp = fc.bigInt({ min: 0n, max: LAST - 1000n })
  fc.assert(
    fc.property(stamp, fc.option(stamp), fc.nat(2 ** 41), fc.nat(8), (newest, last, time, taken) => {
      const { id, carried } = newBackupId(newest, last === null ? undefined : `${PREFIX}${last}`, taken, time)
      if (stampOf(id) !== carried) throw new Error('another number is carried on')
      if (carried <= newest || (last !== null && carried <= last) || carried < BigInt(time))
        throw new Error(`${carried} is not later`)
    })
  )
  t.equal(newBackupId(5n, undefined, 0, 1000).id, `${PREFIX}1000`)
  t.equal(newBackupId(2000n, undefined, 0, 1000).id, `${PREFIX}2001`)
  t.equal(
    newBackupId(0n, `${PREFIX}3000`, 3, 1000).id,
    `${PREFIX}3009`,
    'further off with each id that is taken'
  )
})

t.test('after the last id that there can be, the clock decides', async (t) => {
  t.equal(newBackupId(LAST - 1n, undefined, 0, 1000).id, `${PREFIX}${LAST}`)
  t.equal(newBackupId(LAST, undefined, 0, 1000).id, `${PREFIX}1000`)
})
