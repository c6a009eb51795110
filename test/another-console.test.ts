import t, { type Test } from 'tap'
import { type Example, prefixFor, startExample } from './helpers/example-process.js'
import { environmentFile, openOperatorShell } from './helpers/operator-shell.js'
import { poll } from './helpers/poll.js'
import { shellBlocks } from './helpers/shell-page.js'

const ID = '00_settings_athena'
const SETTINGS = { host_url: 'https://new.example.com', db_custom_names: { DB_COMPONENTS: 'mine' } }

/** Starts two consoles, the second with settings of its own. */
async function twoConsoles(t: Test): Promise<[Example, Example]> {
  const [old, other] = await Promise.all([
    startExample(t, '--memory', '--prefix-db', prefixFor(t)),
    startExample(t, '--memory', '--prefix-db', prefixFor(t), '--no-seed')
  ])
  const system = other.couch.use(`${other.prefix}_system`)
  await system.insert(SETTINGS as object, ID)
  return [old, other]
}

/** Fills in URL and key of each console in the recipe. */
function ofConsoles(code: string, consoles: Record<string, Example>): string {
  const pattern =
    /BACKUPS_URL=https:\/\/(old|new)\.example\.com BACKUPS_API_KEY=\.\.\. BACKUPS_API_SECRET=\.\.\./g
  return code.replace(pattern, (_text, which: string) => {
    const { url, manager } = consoles[which]!
    const [key, secret] = manager.split(':')
    return `BACKUPS_URL=${url} BACKUPS_API_KEY=${key} BACKUPS_API_SECRET=${secret}`
  })
}

async function check(t: Test, other: Example): Promise<void> {
  const settings = await other.couch.use(`${other.prefix}_system`).get(ID)
  t.match(settings, SETTINGS, 'its settings are its own')
  const components = await other.couch.use(`${other.prefix}_components`).list()
  t.equal(components.rows.length, 6, 'the components have come')
}

t.test('the recipe moves a console onto another one, which keeps its settings', async (t) => {
  const [old, other] = await twoConsoles(t)
  const shell = openOperatorShell(t, {})
  const [block] = shellBlocks('docs/recipes.md').filter(
    ({ heading }) => heading === 'Move a console to another one'
  )
  const code = ofConsoles(block!.code, { old, new: other }).replace(/( restore .*)--wait$/m, '$1--wait --yes')
  t.equal(code.match(/127\.0\.0\.1/g)?.length, 2, 'both consoles are named')
  await shell.run({ heading: block!.heading, code })
  await check(t, other)
})

t.test('so does that of the page on operating', async (t) => {
  const [old, other] = await twoConsoles(t)
  const shell = openOperatorShell(t, {
    'console.env': environmentFile(old),
    'new-console.env': environmentFile(other),
    'deployer-data.json': '{}'
  })
  const blocks = [...shellBlocks('docs/disaster-recovery.md'), ...shellBlocks('docs/operating.md')]
  const recipe = 'Onto another console'
  for (const wanted of ['What has to be there', 'Before: make a copy', '1. The console is lost', recipe]) {
    await shell.run(blocks.find(({ heading }) => heading === wanted)!)
  }
  await check(t, other)

  const { code } = blocks.find(({ heading }) => heading === recipe)!
  const without = { heading: recipe, code: code.replace(`--skip-system ${ID} `, '') }
  const away = code.replace('use new-console.env &&', '$& COUCH_URL=http://127.0.0.1:9 &&')
  const unseen = { heading: recipe, code: `(\n${away}) && echo the same || echo not known` }
  t.match(await shell.run(unseen), /not known\n$/, 'settings that cannot be read are not the same')

  const what = new RegExp(`warning: the settings document "${ID}" of system was changed`)
  await t.rejects(
    shell.run(without),
    { message: what },
    'the recipe without --skip-system changes the settings'
  )
})

t.test('so does that of the walk-through', async (t) => {
  const [old, other] = await Promise.all([
    startExample(t, '--memory', '--prefix-db', prefixFor(t)),
    startExample(t, '--memory', '--prefix-db', prefixFor(t), '--no-seed')
  ])
  const { id } = (await (await old.call('POST', '/ak/api/v2/backups')).json()) as { id: string }
  const backup = await poll('the backup', async () => {
    const reply = await old.call('GET', `/ak/api/v2/backups/${id}`)
    const text = await reply.text()
    return JSON.parse(text).in_progress ? undefined : text
  })
  const env = { KEY2: other.manager, DB2: other.couchUrl }
  const shell = openOperatorShell(t, { 'backup.json': backup }, env)
  const heading = 'Restore the file on a second server'
  const block = shellBlocks('docs/walkthrough.md').filter((one) => one.heading === heading)[1]!
  const code = block.code
    .replaceAll('http://127.0.0.1:3001', other.url)
    .replaceAll('other_', `${other.prefix}_`)
    .replace(/^curl -u \$READER2 .*$/m, '')
  const printed = await shell.run({ heading, code })
  const path = /\/ak\/api\/v1\/webhooks\/txs\/\w+/.exec(printed)![0]
  const transaction = await poll(path, async () => {
    const found = (await (await other.call('GET', path)).json()) as { status: string }
    return found.status === 'pending' ? undefined : found
  })
  t.match(transaction, {
    status: 'success',
    databases: { system: { skipped: 1 }, components: { created: 6 } }
  })
  const settings = await other.couch.use(`${other.prefix}_system`).get(ID)
  t.match(settings, { host_url: other.url, access_list: undefined })
})
