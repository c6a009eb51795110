import t from 'tap'
import { bytesFingerprinter, fingerprinter } from '../lib/ids/fingerprint.js'

/** Of the vectors of SipHash-2-4: its output for the first so many bytes 0, 1, 2... */
const VECTORS: [bytes: number, high: number, low: number][] = [
  [0, 0x726fdb47, 0xdd0e0e31],
  [1, 0x74f839c5, 0x93dc67fd],
  [7, 0xab0200f5, 0x8b01d137],
  [8, 0x93f5f579, 0x9a932462],
  [15, 0xa129ca61, 0x49be45e5]
]
const KEY = Buffer.from(Array.from({ length: 16 }, (_, i) => i)).toString('hex')

t.test('fingerprints are those of SipHash-2-4, as stored backups hold them', async (t) => {
  for (const [length, h, l] of VECTORS) {
    const bytes = Buffer.from(Array.from({ length }, (_, i) => i))
    t.strictSame(bytesFingerprinter(KEY)(bytes), { h, l }, `${length} bytes`)
    t.strictSame(fingerprinter(KEY)(bytes.toString()), { h, l }, `an id of ${length} characters`)
  }
})

t.test('two keys may be used in turns', async (t) => {
  const [first, second] = [fingerprinter(KEY), fingerprinter('ab'.repeat(16))]
  const before = first('a')
  t.notSame(second('a'), before)
  t.strictSame(first('a'), before)
})
