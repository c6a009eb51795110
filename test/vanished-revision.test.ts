import { buffer } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { backupDatabase } from '../lib/backup/database-backup.js'
import { Repository } from '../lib/repository/repository.js'
import { startAnsweringCouch } from './helpers/couch-client.js'

const _attachments = { x: { content_type: 'text/plain', length: 5, stub: true } }
const doc = { _id: 'gone', _rev: '1-a', _attachments }
const row = { seq: '1', id: 'gone', changes: [{ rev: '1-a' }], doc }
const answers: Record<string, object> = {
  '/backups': { doc_count: 1 },
  '/backups/_all_docs': { rows: [] }
}
const BULK_GET = '/backups/_bulk_get'

function notFound(body: Buffer): object {
  const { docs } = JSON.parse(body.toString()) as { docs: { id: string }[] }
  return { results: docs.map(({ id }) => ({ id, docs: [{ error: { error: 'not_found' } }] })) }
}

/** Backs up a database whose feed names revisions that it does not have. */
async function backup(t: Test, onUnreadable: 'report' | 'fail', rows: object[] = [row]) {
  let feeds = 0
  const { db } = await startAnsweringCouch(t, async (request, response) => {
    const body = await buffer(request)
    const { pathname, searchParams } = new URL(request.url!, 'http://localhost')
    const first = searchParams.get('since') === '0'
    if (pathname === '/backups/_changes') feeds++
    const answer = (pathname === BULK_GET ? notFound(body) : answers[pathname]) ?? {
      results: first ? rows : [],
      last_seq: '1',
      pending: 0
    }
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify(answer))
  })
  const result = backupDatabase({
    source: db,
    backup: new Repository(db).runningBackup('03_ibp_db_backup_1592924104038'),
    database: 'components',
    excludeTypes: new Set(),
    onUnreadable,
    earlier: { candidate: undefined, full: false, chain: 1000, waste: 0.25 },
    onProgress() {}
  })
  return { result, feeds: () => feeds }
}

t.test('a revision that the feed names and the database does not have fails the backup', async (t) => {
  const { result, feeds } = await backup(t, 'fail')
  await t.rejects(result, { error: 'missing', message: /document "gone"/ })
  t.ok(feeds() > 1, 'after the feed was read on')
})

t.test('such a revision is named in the backup, unless it is to fail', async (t) => {
  const { result, feeds } = await backup(t, 'report')
  const reason = 'missing: the changes feed names a revision that the database does not have'
  const { doc_count, unreadable_count, unreadable } = await result
  t.strictSame([doc_count, unreadable_count, unreadable], [0, 1, [{ id: 'gone', reason }]])
  t.ok(feeds() > 1, 'after the feed was read on')
})

t.test('a backup that lacks more than a thousand documents of a database is none', async (t) => {
  const rows = Array.from({ length: 1001 }, (_, i) => {
    return { seq: `${i}`, id: `gone ${i}`, changes: [{ rev: '1-a' }], doc: null }
  })
  const { result } = await backup(t, 'report', rows)
  await t.rejects(result, { message: /more than 1000 documents, .* cannot be read, .* document "gone 0"/ })
  const summary = await (await backup(t, 'report', rows.slice(1))).result
  t.equal(summary.unreadable_count, 1000)
  t.equal(summary.unreadable!.length, 100)
})
