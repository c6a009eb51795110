import { randomInt } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { NotSealedError, SealingKey } from '../lib/seal/sealing-key.js'
import { cases, wholeNumber } from './helpers/settings.js'
import { setupTampered } from './helpers/tampering.js'

const key = new SealingKey('k1', Buffer.alloc(32, 1))

async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const piece of pieces) all.push(piece)
  return Buffer.concat(all)
}

async function* inPieces(bytes: Buffer, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

const Bytes = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes))

t.test('what is sealed opens as it was, at once and as a stream, in pieces of any size', async (t) => {
  const property = fc.asyncProperty(Bytes, fc.integer({ min: 1, max: 400 }), async (bytes, size) => {
    const place = ['chunk', size]
    const sealed = await collect(key.seal(inPieces(bytes, size), place))
    const streamed = await collect(key.openStream(inPieces(sealed, size), place))
    return streamed.equals(bytes) && key.open(Buffer.from(sealed), place).equals(bytes)
  })
  await fc.assert(property, { numRuns: cases(40) })
  t.pass()
})

t.test('what was changed, cut or moved does not open', async (t) => {
  const property = fc.asyncProperty(
    Bytes,
    fc.nat(),
    fc.constantFrom('flip', 'cut', 'place', 'key'),
    async (bytes, at, how) => {
      const sealed = await collect(key.seal(inPieces(bytes, 100), ['chunk', 1]))
      const changed = how === 'cut' ? sealed.subarray(0, at % sealed.length) : Buffer.from(sealed)
      if (how === 'flip') changed[at % sealed.length]! ^= 1 << (at % 8)
      const place = ['chunk', how === 'place' ? 2 : 1]
      const by = how === 'key' ? new SealingKey('k1', Buffer.alloc(32, 2)) : key
      const results = await Promise.allSettled([
        collect(by.openStream(inPieces(changed, 100), place)),
        (async () => by.open(Buffer.from(changed), place))()
      ])
      return results.every(
        (result) => result.status === 'rejected' && result.reason instanceof NotSealedError
      )
    }
  )
  await fc.assert(property, { numRuns: cases(80) })
  t.pass()
})

t.test('the same bytes are never sealed alike', async (t) => {
  const seal = () => collect(key.seal(inPieces(Buffer.from('x'), 1), ['a']))
  t.notOk((await seal()).equals(await seal()))
  t.equal(key.openText(key.sealText('ü', ['a']), ['a']), 'ü')
})

t.test('chunks that were swapped, replayed, cut or changed at any place are found', async (t) => {
  const on = await setupTampered(t)
  const [first, second] = on.chunks
  const bytes = await Promise.all([first!, second!].map((id) => on.readChunk(id)))
  const harms: Record<string, Buffer> = {
    'swapped for another': bytes[1]!,
    'cut at its end': bytes[0]!.subarray(0, -1),
    'cut at its beginning': bytes[0]!.subarray(1),
    'cut to nothing': Buffer.alloc(0),
    longer: Buffer.concat([bytes[0]!, Buffer.of(0)])
  }
  for (let i = 0; i < 20; i++) {
    const changed = Buffer.from(bytes[0]!)
    const at = randomInt(changed.length * 8)
    changed[at >> 3]! ^= 1 << (at & 7)
    harms[`bit ${at} of ${changed.length * 8}`] = changed
  }
  for (const [what, changed] of Object.entries(harms)) {
    await on.writeChunk(first!, changed)
    t.strictSame(await on.unnoticed(), [], what)
  }
})

/** One of so many edits of a header is tried. */
const SHARE = wholeNumber('HEADER_SHARE', 4)

/** Returns copies of an object, each with one member, however deep, changed or left out. */
function* edits(
  value: unknown,
  path: string[] = []
): Generator<{ path: string[]; edit: 'change' | 'remove' }> {
  if (path.length > 0) yield { path, edit: 'remove' }
  if (typeof value === 'object' && value !== null)
    for (const [name, member] of Object.entries(value)) yield* edits(member, [...path, name])
  else yield { path, edit: 'change' }
}

function edited(header: object, path: readonly string[], edit: 'change' | 'remove'): object {
  const copy = structuredClone(header)
  // biome-ignore lint/suspicious/noExplicitAny: any member of a header
  const holder = path.slice(0, -1).reduce((inner: any, name) => inner[name], copy)
  const name = path.at(-1)!
  const value = holder[name]
  if (edit === 'remove') {
    if (Array.isArray(holder)) holder.splice(Number(name), 1)
    else delete holder[name]
  } else if (typeof value === 'number') holder[name] = value + 1
  else if (typeof value === 'boolean') holder[name] = !value
  else holder[name] = `${value}x`
  return copy
}

t.test('a header of which any member was changed or left out is found', async (t) => {
  const on = await setupTampered(t)
  const { _id, _rev, ...header } = await on.header()
  const all = [...edits(header)]
  // without its type it is no backup, and without `storage` one of athena's: see the next test
  const harmful = all.filter(({ path }) => !['type', 'storage'].includes(path.join('.')))
  t.ok(harmful.length > 60)
  // all of them by `npm run test:reliability`
  const first = randomInt(SHARE)
  for (const { path, edit } of harmful.filter((_, i) => i % SHARE === first)) {
    await on.writeHeader(edited(header, path, edit))
    t.strictSame(await on.unnoticed(), [], `${edit} ${path.join('.')}`)
  }
  await on.writeHeader(header)
  t.strictSame(await on.unnoticed(), ['get', 'restore', 'documents were written'], 'as it was, it is good')
})

t.test(
  'what is put in place of a sealed backup and is not sealed is refused where the option says so',
  async (t) => {
    const on = await setupTampered(t, { plain: 'refuse' })
    const { _id, _rev, storage, ...header } = await on.header()
    const { seal, ...plain } = storage
    for (const forged of [
      header,
      { ...header, storage: plain },
      { ...header, storage: { ...plain, layout: 3 } }
    ]) {
      await on.writeHeader(forged)
      t.strictSame(await on.unnoticed(), [])
    }
  }
)

t.test('an older state of a header, and one of another backup, are found', async (t) => {
  const on = await setupTampered(t)
  const { ids } = await on.host.app.dbBackups.list()
  const { _id, _rev, ...older } = (await on.on.couch.use(on.on.names.backups).get(ids[0]!)) as unknown as {
    _id: string
    _rev: string
  }
  await on.writeHeader(older)
  t.strictSame(await on.unnoticed(), [])
})
