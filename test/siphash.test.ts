import t from 'tap'
import { sipHash } from '../lib/ids/siphash.js'

/** The key of the reference implementation's vectors, bytes 0 to 15. */
const KEY = [0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c]

/** Hashes of bytes that count from 0, by how many there are, from the reference implementation. */
const VECTORS: Record<number, string> = {
  0: '726fdb47dd0e0e31',
  1: '74f839c593dc67fd',
  7: 'ab0200f58b01d137',
  8: '93f5f5799a932462',
  9: '9e0082df0ba9e4b0',
  15: 'a129ca6149be45e5',
  16: '3f2acc7f57c29bdb',
  63: '958a324ceb064572'
}

t.test('hashes are those of the reference implementation', async (t) => {
  for (const [length, expected] of Object.entries(VECTORS)) {
    const { h, l } = sipHash(
      KEY,
      Uint8Array.from({ length: Number(length) }, (_, i) => i)
    )
    const hex = [h, l].map((half) => half.toString(16).padStart(8, '0')).join('')
    t.equal(hex, expected, `${length} bytes`)
  }
})
