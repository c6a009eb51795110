import { spawnSync } from 'node:child_process'
import { mkdtemp, rm, rmdir, statfs, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { apiOf, backupOf } from './helpers/api.js'
import { setupDatabases } from './helpers/database.js'
import { buildHost } from './helpers/host.js'
import { bytesOf } from './helpers/seed.js'
import { spooledIn } from './helpers/spooled.js'

const MiB = 1024 * 1024
const DISK = 2 * MiB

/** Mounts a disk of 2 MiB. Returns `undefined` when this user may not mount one. */
async function mountSmallDisk(t: Test): Promise<string | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'disk-full-'))
  const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK}`, 'tmpfs', directory])
  if (status !== 0) {
    await rmdir(directory)
    return undefined
  }
  t.teardown(async () => {
    spawnSync('umount', [directory])
    await rmdir(directory)
  })
  return directory
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory)
  return bavail * bsize
}

t.test('a disk that is full', async (t) => {
  const spoolDirectory = await mountSmallDisk(t)
  if (!spoolDirectory) return t.pass('a disk to fill', { skip: 'only a user who may mount one can run this' })
  const on = await setupDatabases(t)
  const host = await buildHost(t, { on, spoolDirectory })
  const api = apiOf(host)
  const free = await freeBytes(spoolDirectory)
  const clean = async (t: Test) => {
    t.strictSame(await spooledIn(spoolDirectory), [], 'nothing is left')
    t.equal(await freeBytes(spoolDirectory), free, 'its room is free again')
  }
  const refuse = async (t: Test, docs: object[]) => {
    const reply = await api.call('PUT', '', backupOf(docs))
    t.match(reply.json(), { statusCode: 507, code: 'DB_BACKUPS_INSUFFICIENT_STORAGE' })
    t.equal(reply.json().message, 'the disk for uploads is full')
  }
  const many = Array.from({ length: 60 }, (_, i) => ({ _id: `${i}`, text: 'x'.repeat(100_000) }))
  const large = [{ _id: 'large', text: 'x'.repeat(6 * MiB) }]

  await t.test('refuses uploads with 507, and is cleaned up', async (t) => {
    for (let i = 0; i < 10; i++) {
      await refuse(t, i % 2 ? many : large)
      await clean(t)
    }
    t.equal((await on.fetchAll(on.names.components)).size, 0, 'nothing was restored')
  })

  await t.test('refuses the smallest upload, rather than to fail its restore', async (t) => {
    const ballast = join(spoolDirectory, 'ballast')
    await writeFile(ballast, Buffer.alloc(free), { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOSPC') throw error
    })
    await refuse(t, [{ _id: 'a' }])
    t.strictSame(await spooledIn(spoolDirectory), ['ballast'])
    await rm(ballast)
    await clean(t)
  })

  await t.test('fails a restore by id of a large document clearly', async (t) => {
    const data = bytesOf('a', 5 * MiB).toString('base64')
    const inserted = await on.couch
      .use(on.names.sessions)
      .insert({ _id: 'large', _attachments: { a: { content_type: 'image/png', data } } } as never)
    const id = await api.backup()
    await on.couch.use(on.names.sessions).destroy('large', inserted.rev)
    const { status, athena_messages } = await api.restore(id)
    t.equal(status, 'error')
    t.match(athena_messages.at(-1), /the disk for uploads is full/)
    await clean(t)
  })

  await t.test('does not keep what fits from being restored', async (t) => {
    t.match(await api.restore(backupOf([{ _id: 'a' }])), { status: 'success' })
    await clean(t)
  })
})

t.test('a directory for uploads that goes away is told by the name of its option', async (t) => {
  const spoolDirectory = join(t.testdir({ spool: {} }), 'spool')
  const host = await buildHost(t, { spoolDirectory })
  await rmdir(spoolDirectory)
  const reply = await apiOf(host).call('PUT', '', backupOf([{ _id: 'a' }]))
  t.strictSame(reply.json(), {
    statusCode: 507,
    code: 'DB_BACKUPS_INSUFFICIENT_STORAGE',
    error: 'Insufficient Storage',
    message: 'the directory for uploads, spoolDirectory, is gone or cannot be written'
  })
})
