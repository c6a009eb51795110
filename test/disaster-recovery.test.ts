import { once } from 'node:events'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { compareDatabases, DATABASES, fetchAll, type Snapshot } from './helpers/database.js'
import { type Example, prefixFor, startExample } from './helpers/example-process.js'
import { environmentFile, openOperatorShell } from './helpers/operator-shell.js'
import { load, seedDocuments } from './helpers/seed.js'
import { shellBlocks } from './helpers/shell-page.js'
import { startKeeper } from './helpers/two-servers.js'

const PAGE = 'docs/disaster-recovery.md'
const ELSEWHERE = 'From a repository on another server'
const DEPLOYER = '{"storage": "of the deployer",\n "text": "é 漢 😀 \\"quoted\\" \\\\"}\n'

async function snapshots({ couch, prefix }: Example): Promise<Record<string, Snapshot>> {
  const found: Record<string, Snapshot> = {}
  for (const name of DATABASES) found[name] = await fetchAll(couch, `${prefix}_${name}`)
  return found
}

const without = (snapshot: Snapshot, leftOut: (id: string, type: unknown) => boolean): Snapshot =>
  new Map([...snapshot].filter(([id, { type }]) => !leftOut(id, type)))

const keysOf = (system: Snapshot): string[] =>
  [...system].flatMap(([id, { type }]) => (type === 'api_key_doc' ? [id] : [])).sort()

t.test('the commands of the page on disaster recovery bring a lost console back', async (t) => {
  const [lost, fresh] = await Promise.all([
    startExample(t, '--memory', '--prefix-db', prefixFor(t)),
    startExample(t, '--memory', '--prefix-db', prefixFor(t), '--no-seed')
  ])
  const documents = seedDocuments({ count: 150, attachmentEvery: 10, attachmentSize: 20_000 })
  await load(lost.couch.use(`${lost.prefix}_components`), documents)
  // as athena keeps its keys
  const key = {
    _id: 'kYKYZt1h89xuYg21',
    type: 'api_key_doc',
    roles: ['manager'],
    salt: 's',
    hashed_secret: 'h'
  }
  await load(lost.couch.use(`${lost.prefix}_system`), [key])
  const before = await snapshots(lost)
  const own = keysOf((await snapshots(fresh)).system!)
  const shell = openOperatorShell(t, {
    'console.env': environmentFile(lost),
    'new-console.env': environmentFile(fresh),
    'deployer-data.json': DEPLOYER
  })
  const blocks = shellBlocks(PAGE).filter(({ heading }) => heading !== ELSEWHERE)
  const disaster = blocks.findIndex(({ heading }) => heading === '1. The console is lost')
  t.ok(disaster > 0, 'the page has its first step')
  for (const block of blocks.slice(0, disaster)) await shell.run(block)

  lost.child.kill('SIGKILL')
  await once(lost.child, 'exit')
  for (const name of process.env.COUCHDB_URL ? DATABASES : [])
    await lost.couch.db.destroy(`${lost.prefix}_${name}`)

  const printed: Record<string, string> = {}
  for (const block of blocks.slice(disaster))
    printed[block.heading] = (printed[block.heading] ?? '') + (await shell.run(block))
  t.match(printed['3. Preview, then restore'], /^components: 156 to create, 0 to compare, 0 only here$/m)
  t.match(printed['5. Check counts'], /^components: 156 in the backup, 0 missing$/m)

  const after = await snapshots(fresh)
  compareDatabases(t, before.components!, after.components!)
  // the console's own sessions are left out of backups
  compareDatabases(
    t,
    without(before.sessions!, (_id, type) => type === 'session_athena'),
    after.sessions!
  )
  // the keys were revoked, and the restore has rebuilt the white list in the settings
  const changed = (id: string, type: unknown) =>
    type === 'api_key_doc' || id === '00_settings_athena' || id === 'athena_backup_lease'
  compareDatabases(t, without(before.system!, changed), without(after.system!, changed))
  t.ok(after.system!.has('00_settings_athena'))
  t.ok(before.system!.has(key._id))
  t.notOk(after.system!.has(key._id), 'a key as athena keeps it is revoked')
  t.strictSame(keysOf(after.system!), own, "the new console's own keys are left")

  t.equal(
    readFileSync(join(shell.directory, 'deployer-data.restored.json'), 'utf8'),
    DEPLOYER,
    "the deployer's data"
  )
  const copies = readdirSync(shell.directory).filter((name) => /^03_ibp_db_backup_\d+\.json$/.test(name))
  t.equal(copies.length, 2, 'one of the command line, one of curl')
  for (const name of copies) {
    const { _attachments } = JSON.parse(readFileSync(join(shell.directory, name), 'utf8'))
    t.equal(Buffer.from(_attachments.deployer, 'base64').toString(), DEPLOYER, name)
    t.equal(statSync(join(shell.directory, name)).mode & 0o777, 0o600)
  }
  const status = async (as: string) => (await fresh.call('GET', '/ak/api/v1/backups', { as })).status
  t.equal(await status(lost.manager), 401, 'the lost console’s key is revoked')
  t.equal(await status(fresh.manager), 200)

  const revoke = blocks.find(({ heading }) => heading === '7. Revoke and rotate')!
  await t.rejects(shell.run(revoke), 'nothing was left to revoke')
})

t.test('those for a repository on another server need no file', async (t) => {
  const keeper = await startKeeper(t)
  const before = process.env.BACKUPS_COUCHDB_URL
  process.env.BACKUPS_COUCHDB_URL = keeper.url
  t.teardown(() => {
    if (before === undefined) delete process.env.BACKUPS_COUCHDB_URL
    else process.env.BACKUPS_COUCHDB_URL = before
  })
  const start = (...options: string[]) =>
    startExample(t, '--memory', '--prefix-db', prefixFor(t), '--backups-db', keeper.database, ...options)
  const lost = await start()
  await load(lost.couch.use(`${lost.prefix}_components`), seedDocuments({ count: 50, attachmentEvery: 10 }))
  const held = await snapshots(lost)
  const { origin, username, password } = new URL(keeper.url)
  const environment = `REPOSITORY_URL=${origin}
REPOSITORY_USER=${username}
REPOSITORY_PASSWORD=${password}
REPOSITORY_DATABASE=${keeper.database}
`
  const fresh = await start('--no-seed')
  const shell = openOperatorShell(t, {
    'console.env': environmentFile(lost),
    'new-console.env': environmentFile(fresh) + environment
  })
  const blocks = shellBlocks(PAGE)
  const run = async (heading: string) => {
    let printed = ''
    for (const block of blocks.filter((one) => one.heading === heading)) printed += await shell.run(block)
    return printed
  }
  await run('What has to be there')
  await shell.run({
    heading: 'a backup',
    code: 'use console.env && npx fastify-couchdb-backups start --wait'
  })
  lost.child.kill('SIGKILL')
  await once(lost.child, 'exit')
  for (const name of process.env.COUCHDB_URL ? DATABASES : [])
    await lost.couch.db.destroy(`${lost.prefix}_${name}`)

  const [follow] = blocks.filter(({ heading }) => heading === '4. Follow the transaction')
  const definition = follow!.code.slice(0, follow!.code.lastIndexOf('\nfollow'))
  await shell.run({ heading: follow!.heading, code: definition })
  t.match(await run(ELSEWHERE), /^[0-9a-f]{16}\n$/m, 'the id of the lost console comes last')
  const after = await snapshots(fresh)
  compareDatabases(t, held.components!, after.components!)
})
