import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Fastify from 'fastify'
import nano from 'nano'
import PouchDB from 'pouchdb'
import t from 'tap'
import dbBackups, { createMemoryWebhookStore } from '../lib/index.js'
import { compareDatabases, setupDatabases } from './helpers/database.js'
import { type Example, prefixFor, startExample } from './helpers/example-process.js'
import { environmentFile, openOperatorShell } from './helpers/operator-shell.js'
import { load, seedDocuments } from './helpers/seed.js'
import { shellBlocks } from './helpers/shell-page.js'

/** Returns the blocks of one section. */
function section(heading: string) {
  const found = shellBlocks('docs/operating.md').filter((block) => block.heading === heading)
  if (found.length === 0) throw new Error(`the page has no commands in "${heading}"`)
  return found
}

const system = ({ couch, prefix }: Example) => couch.use<Record<string, unknown>>(`${prefix}_system`)

async function idsOf(example: Example): Promise<string[]> {
  return (await system(example).list()).rows.map(({ id }) => id)
}

interface Summary {
  in_progress: boolean
  error?: string
  base?: string
}

const summaryOf = async (example: Example, id: string): Promise<Summary> =>
  (await (await example.call('GET', `/ak/api/v3/backups/${id}`)).json()) as Summary

async function backUp(example: Example): Promise<string> {
  const started = await example.call('POST', '/ak/api/v3/backups')
  const { id } = (await started.json()) as { id: string }
  for (;;) {
    const backup = await summaryOf(example, id)
    if (!backup.in_progress) {
      if (backup.error) throw new Error(backup.error)
      return id
    }
  }
}

t.test('the commands of the page on operating', async (t) => {
  const example = await startExample(t, '--memory', '--prefix-db', prefixFor(t))
  const components = example.couch.use<Record<string, unknown>>(`${example.prefix}_components`)
  await load(example.couch.use(`${example.prefix}_components`), seedDocuments({ count: 30, size: 300_000 }))
  const shell = openOperatorShell(t, { 'console.env': environmentFile(example) })
  const run = async (heading: string) => {
    let printed = ''
    for (const block of section(heading)) printed += await shell.run(block)
    return printed
  }
  /** Runs the last block of a section, which may fail, and prints its exit code. */
  const failing = (heading: string, index = -1) => {
    const code = `{\n${section(heading).at(index)!.code}} || echo "ended with $?"`
    return shell.run({ heading, code })
  }
  await shell.run(shellBlocks('docs/disaster-recovery.md')[0]!)
  const [first, second] = [await backUp(example), await backUp(example)]

  await t.test('check what is stored', async (t) => {
    t.match(await run('Check a copy'), `${first} whole\n${second} whole\n`)
    const { base } = await summaryOf(example, second)
    const chunk = (await idsOf(example)).find((id) => id.startsWith(`backup_chunk_${first.slice(17)}_`))!
    const { _rev } = await system(example).get(chunk)
    await system(example).destroy(chunk, _rev)
    t.match(
      await failing('Check a copy'),
      new RegExp(`${first} NOT USABLE\n${second} ${base ? 'NOT USABLE' : 'whole'}\nended with [1-6]\n$`),
      'also a backup that shares the chunk'
    )
  })
  // It stores anew what the others have lost.
  const whole = await backUp(example)

  t.test('encrypt, without a file that is not whole', async (t) => {
    const gpg = 'gpg() { cat > "$7"; }\n'
    const [block] = section('Encryption')
    const as = (id: string) => ({ heading: 'Encryption', code: `${gpg}id=${id}\n${block!.code}` })
    await shell.run(as(whole))
    const file = readFileSync(join(shell.directory, `${whole}.json.gpg`), 'utf8')
    t.match(JSON.parse(file), { id: whole, in_progress: false })
    const damaged = as(first)
    damaged.code = `{\n${damaged.code}} || echo "ended with $?"`
    t.match(await shell.run(damaged), /ended with [1-6]\n$/)
    t.notOk(existsSync(join(shell.directory, `${first}.json.gpg`)))
  })

  t.test('restore a part', async (t) => {
    const spoil = async (id: string) =>
      components.insert({ _rev: (await components.get(id))._rev, spoiled: true }, id)
    for (const id of ['org1peer1', 'org1ca', 'org1msp']) await spoil(id)
    const { _rev, ...settings } = await system(example).get('00_settings_athena')
    const printed = await run('Restore a part')
    t.match(printed, /components: 36 documents: 2 changed, 33 unchanged, 1 skipped/, 'with skip lists')
    t.match(printed, /components: 36 documents: 1 changed, 35 unchanged/, 'one database')
    t.match(printed, /components: 1 documents?: 1 unchanged/, 'one document')
    t.notOk((await components.get('org1peer1')).spoiled)
    t.match((await system(example).get('00_settings_athena')).access_list, settings.access_list)
  })

  t.test(
    'each script ends with the exit code of the command line on a wrong key, and prints nothing',
    async (t) => {
      const wrong = environmentFile(example).replace(/(?<=BACKUPS_API_SECRET=).*/, 'wrong')
      writeFileSync(join(shell.directory, 'console.env'), wrong)
      t.equal(await failing('Check a copy'), 'ended with 3\n')
      for (const [index, { code }] of section('Restore a part').entries()) {
        t.equal(await failing('Restore a part', index), 'ended with 3\n', code)
      }
      const [block] = section('Encryption')
      const code = `{\nid=${second}x\n${block!.code}} || echo "ended with $?"`
      t.equal(await shell.run({ heading: 'Encryption', code }), 'ended with 2\n')
    }
  )
})

t.test('backups in a replica are listed, read and restored', async (t) => {
  const on = await setupDatabases(t)
  const [backups, replica] = [`${on.names.components}_backups`, `${on.names.components}_replica`]
  t.teardown(async () => {
    for (const name of [backups, replica]) await nano(on.url).db.destroy(name)
  })
  const documents = seedDocuments({ count: 40, size: 200_000, attachmentEvery: 5 })
  await load(on.couch.use(on.names.components), documents, 10)
  const start = async (name: string) => {
    const app = Fastify()
    await app.register(dbBackups, {
      couch: on.couch,
      databases: { ...on.names, backups: name },
      authorize: () => {},
      webhooks: createMemoryWebhookStore(),
      rebuildWhitelist: () => {}
    })
    await app.ready()
    return app
  }
  const first = await start(backups)
  const { id, finished } = await first.dbBackups.start()
  const { doc_count } = await finished
  await first.dbBackups.attach(id, 'deployer', 'data of the deployer')
  await first.close()

  await on.couch.db.create(replica)
  await PouchDB.replicate(`${on.url}/${backups}`, `${on.url}/${replica}`)
  const before = await on.fetchAll(on.names.components)
  await on.couch.db.destroy(on.names.components)

  const second = await start(replica)
  t.teardown(() => second.close())
  t.strictSame(await second.dbBackups.list(), { ids: [id] })
  t.match(await second.dbBackups.summary(id), { doc_count, attachments: ['deployer'] })
  await (await second.dbBackups.restore({ id })).finished
  compareDatabases(t, before, await on.fetchAll(on.names.components), { rev: true })
})
