import { randomBytes } from 'node:crypto'
import { createGunzip, createGzip, gunzipSync, gzipSync } from 'node:zlib'
import t from 'tap'
import { throughInto } from '../lib/repository/codec.js'

const MiB = 1024 * 1024

/** Runs zlib into `output`, and returns the pieces that it produces. */
async function run(make: typeof createGunzip | typeof createGzip, bytes: Buffer, output: Buffer) {
  const pieces: Buffer[] = []
  const length = await throughInto(
    bytes,
    (options) => {
      const zlib = make(options)
      const push = zlib.push.bind(zlib)
      zlib.push = (piece: Buffer | null) => {
        if (piece) pieces.push(piece)
        return push(piece)
      }
      return zlib
    },
    output
  )
  return { length, pieces }
}

t.test(
  'zlib writes into the memory that is given, on every version of Node.js that is supported',
  async (t) => {
    const text = Buffer.concat([Buffer.alloc(MiB, 'a text '), randomBytes(MiB)])
    for (const [make, bytes] of [
      [createGunzip, gzipSync(text)],
      [createGzip, text]
    ] as const) {
      // a part of a larger buffer starts in the middle of its memory
      const output = Buffer.alloc(3 * MiB).subarray(1000)
      const { length, pieces } = await run(make, bytes, output)
      t.ok(
        (make === createGzip ? gunzipSync(output.subarray(0, length)) : output.subarray(0, length)).equals(
          text
        )
      )
      t.ok(pieces.length > 0 && pieces.every(({ buffer }) => buffer === output.buffer), 'none lies elsewhere')
    }
  }
)

t.test('output that fills the memory to its last byte fits, and one byte more does not', async (t) => {
  const text = randomBytes(100_000)
  const exact = Buffer.alloc(text.length)
  t.equal(await throughInto(gzipSync(text), createGunzip, exact), text.length)
  t.ok(exact.equals(text))
  const short = Buffer.alloc(text.length - 1)
  await t.rejects(throughInto(gzipSync(text), createGunzip, short), RangeError)
})

t.test('output that zlib puts elsewhere is copied', async (t) => {
  const text = randomBytes(100_000)
  const output = Buffer.alloc(text.length)
  const elsewhere = () => {
    const zlib = createGunzip()
    // plays a version of Node.js that keeps its output under other names
    Object.defineProperty(zlib, '_outBuffer', {
      get: () => own,
      set: (buffer: Buffer) => {
        if (buffer !== output) own = buffer
      }
    })
    let own: Buffer = Buffer.alloc(200_000)
    return zlib
  }
  t.equal(await throughInto(gzipSync(text), elsewhere, output), text.length)
  t.ok(output.equals(text))
})
