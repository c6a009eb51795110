import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { KINDS } from '../lib/observe/metrics.js'

type Explain = (error: { status: number; message: string; code?: string }) => string

const explainModule = (): Promise<{ explain: Explain }> =>
  import(pathToFileURL(join(__dirname, '../lib/operator/page/explain.mjs')).href)

t.test('whoever has to wait for an operation is told which, whatever its kind', async (t) => {
  const { explain } = await explainModule()
  for (const kind of KINDS) {
    const message = `${kind}_in_progress`
    t.match(explain({ status: 400, message }), /Wait until it has ended/, `${kind}: the operator page`)
    for (const page of ['reference', 'troubleshooting'])
      t.ok(
        readFileSync(join(__dirname, `../docs/${page}.md`), 'utf8').includes(`\`${message}\``),
        `${kind}: ${page}`
      )
  }
})

t.test('only a database that does not answer is said not to be available', async (t) => {
  const { explain } = await explainModule()
  const database = { status: 503, code: 'DB_BACKUPS_DATABASE_UNAVAILABLE', message: 'econnrefused' }
  t.match(explain(database), /^The database is not available \(econnrefused\)/)
  const host = { status: 503, code: 'DB_BACKUPS_HOST_TIMEOUT', message: 'versions did not answer' }
  t.match(explain(host), /^Versions did not answer\. Nothing was started/)
  t.notMatch(explain(host), /database/)
})
