import { execFileSync } from 'node:child_process'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { buildHost } from './helpers/host.js'
import { cases } from './helpers/settings.js'
import { spooledIn } from './helpers/spooled.js'

const BACKUP = Buffer.from(JSON.stringify(backupOf([{ _id: 'a', text: 'ü漢'.repeat(3000) }])))
/** Bytes of the header that zlib writes. */
const HEADER = 10

const crc32 = (bytes: Uint8Array) => gzipSync(bytes).readUInt32LE(gzipSync(bytes).length - 8)

/** Makes a member with fields in its header (RFC 1952). */
function memberWith(content: Uint8Array, flags: number, change = (crc: number) => crc): Buffer {
  const fields = [Buffer.from([0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3])]
  if (flags & 4) fields.push(Buffer.from([5, 0]), Buffer.from('BC\x01\x00\x00', 'latin1'))
  if (flags & 8) fields.push(Buffer.from('x.json\0'))
  if (flags & 16) fields.push(Buffer.from('a comment\0'))
  if (flags & 2) {
    const sum = Buffer.alloc(2)
    sum.writeUInt16LE(change(crc32(Buffer.concat(fields)) & 0xffff))
    fields.push(sum)
  }
  return Buffer.concat([...fields, gzipSync(content).subarray(HEADER)])
}

async function setup(t: Test) {
  const spoolDirectory = t.testdir()
  const host = await buildHost(t, { spoolDirectory })
  const api = apiOf(host)
  /** Uploads, and returns the status, and what the reply or else the transaction says. */
  const upload = async (payload: Buffer) => {
    const reply = await api.call('PUT', '', payload, { 'content-encoding': 'gzip' })
    const told = reply.json()
    if (reply.statusCode !== 202) return { code: reply.statusCode, told: String(told.message) }
    return { code: 202, told: String((await host.waitForRestore(told.url)).status) }
  }
  return { host, upload, spoolDirectory }
}

const EMPTY = gzipSync('')
const ACCEPTED: Record<string, Buffer> = {
  'empty members before, between and after': Buffer.concat([
    EMPTY,
    EMPTY,
    gzipSync(BACKUP.subarray(0, 999)),
    EMPTY,
    gzipSync(BACKUP.subarray(999)),
    ...Array(2000).fill(EMPTY)
  ]),
  'blocks of bgzip, with its end': Buffer.concat([
    memberWith(BACKUP, 4),
    Buffer.from('1f8b08040000000000ff0600424302001b0003000000000000000000', 'hex')
  ]),
  'a member of each byte': Buffer.concat([
    ...Array.from({ length: 300 }, (_, i) => gzipSync(BACKUP.subarray(i, i + 1))),
    gzipSync(BACKUP.subarray(300))
  ]),
  'a long name': Buffer.concat([
    memberWith(BACKUP, 8).subarray(0, HEADER),
    Buffer.alloc(100_000, 'n'),
    memberWith(BACKUP, 8).subarray(HEADER)
  ]),
  'as the tool gzip writes it': execFileSync('gzip', ['-c'], { input: BACKUP })
}

t.test('gzip of any tool is accepted', async (t) => {
  const { upload } = await setup(t)
  for (const [what, bytes] of Object.entries(ACCEPTED))
    t.strictSame(await upload(bytes), { code: 202, told: 'success' }, what)
  for (let flags = 0; flags < 32; flags++) {
    const { code, told } = await upload(memberWith(BACKUP, flags))
    if (code !== 202 || told !== 'success') t.fail(`flags ${flags}: ${code} ${told}`)
  }
})

t.test('members may end anywhere', async (t) => {
  const { upload } = await setup(t)
  // The bytes of a stored member are as many as those of its content, so members end where steps do.
  const lengths = fc.array(
    fc.oneof(fc.integer({ min: 0, max: 9000 }), fc.integer({ min: 4060, max: 4100 })),
    {
      maxLength: 5
    }
  )
  await fc.assert(
    fc.asyncProperty(lengths, fc.constantFrom(0, 1, 9), async (lengths, level) => {
      const members: Buffer[] = []
      let at = 0
      for (const length of [...lengths, BACKUP.length]) {
        members.push(gzipSync(BACKUP.subarray(at, at + length), { level }))
        at += length
      }
      const { code, told } = await upload(Buffer.concat(members))
      if (code !== 202 || told !== 'success') throw new Error(`${code} ${told}`)
    }),
    { numRuns: cases(10) }
  )
  t.pass('all are accepted')
})

t.test('whatever is wrong in any member is refused, and writes nothing', async (t) => {
  const { host, upload, spoolDirectory } = await setup(t)
  const [first, second] = [gzipSync(BACKUP.subarray(0, 999)), gzipSync(BACKUP.subarray(999))]
  const changed = (bytes: Buffer, at: number) => {
    const copy = Buffer.from(bytes)
    copy[at < 0 ? copy.length + at : at]! ^= 0x41
    return copy
  }
  const refused: Record<string, [Buffer, RegExp]> = {
    'a wrong sum in the first member': [Buffer.concat([changed(first, -8), second]), /incorrect data check/],
    'a wrong length in the first member': [
      Buffer.concat([changed(first, -4), second]),
      /incorrect length check/
    ],
    'a wrong sum in the last one': [Buffer.concat([first, changed(second, -8)]), /incorrect data check/],
    'a wrong sum in an empty one': [
      Buffer.concat([first, second, changed(EMPTY, -8)]),
      /incorrect data check/
    ],
    'a wrong sum of the header': [memberWith(BACKUP, 2, (crc) => crc ^ 1), /header crc mismatch/],
    'flags that are reserved': [changed(memberWith(BACKUP, 0), 3), /unknown header flags/],
    'another method': [changed(first, 2), /unknown compression method/],
    'zeros between members': [
      Buffer.concat([first, Buffer.alloc(2), second]),
      /data after what was compressed/
    ],
    'text between members': [Buffer.concat([first, Buffer.from('ab'), second]), /incorrect header check/],
    'a member cut in its header': [Buffer.concat([first, second, EMPTY.subarray(0, 5)]), /unexpected end/],
    'a member missing': [first, /truncated|unexpected end/],
    'the magic alone': [Buffer.from([0x1f, 0x8b]), /unexpected end/],
    'half of the magic': [Buffer.from([0x1f]), /is not gzip/],
    'half of the magic at the end': [Buffer.concat([first, second, Buffer.from([0x1f])]), /unexpected end/]
  }
  for (const [what, [bytes, message]] of Object.entries(refused)) {
    const { code, told } = await upload(bytes)
    t.equal(code, 400, `${what}: ${told}`)
    t.match(told, message, what)
  }
  t.equal((await host.on.fetchAll(host.on.names.components)).size, 0)
  t.strictSame(await spooledIn(spoolDirectory), [])
})
