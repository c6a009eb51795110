import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { TooManyRepeatedError } from '../../lib/errors.js'
import { fingerprint } from '../../lib/ids/fingerprint.js'
import { MAX_REPEATED, VersionIndex } from '../../lib/ids/version-index.js'

const MiB = 1024 * 1024
/** Tables of 65,536 slots of 12 bytes, a few of which have doubled. */
const TABLES = 54 * MiB
/** The most that `SeenIds` creates. */
const FILTERS = 22 * MiB

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

/** Bytes of buffers in use. */
function buffers(): number {
  collectGarbage()
  return process.memoryUsage().arrayBuffers
}

t.test(
  'a version index holds 3,000,000 documents that came again in 76 MiB, and takes no more',
  { timeout: 600_000 },
  async (t) => {
    const before = buffers()
    const index = new VersionIndex()
    let peak = 0
    const noteTwice = (i: number) => {
      index.note(fingerprint(`${i}`))
      index.note(fingerprint(`${i}`))
    }
    for (let i = 0; i < MAX_REPEATED; i++) {
      noteTwice(i)
      if (i % 50_000 === 0) peak = Math.max(peak, buffers() - before)
    }
    t.equal(index.repeated.size, MAX_REPEATED)
    t.throws(() => noteTwice(MAX_REPEATED), TooManyRepeatedError)
    peak = Math.max(peak, buffers() - before)
    const most = TABLES + FILTERS
    t.ok(peak <= most, `${Math.round(peak / MiB)} MiB of buffers, at most ${most / MiB}`)
    t.ok(
      index.isLast(fingerprint('0'), 1) && !index.isLast(fingerprint('0'), 0),
      'earlier entries are still known'
    )
  }
)
