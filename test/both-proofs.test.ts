import t from 'tap'
import { CouchDatabase } from '../lib/couch/database.js'
import { readDocument } from '../lib/json/document.js'
import { Decider } from '../lib/restore/decider.js'
import { partitionsOf, RestorePlan } from '../lib/restore/plan.js'
import { Scope } from '../lib/restore/scope.js'
import type { RestoreSource } from '../lib/restore/source.js'
import { TargetView } from '../lib/restore/target.js'
import { setupDatabases } from './helpers/database.js'
import { clientOf } from './helpers/repository-runs.js'

const NONE: ReadonlySet<never> = new Set<never>()
const ATTACHED = '"a":"a","_attachments":{"a":{"content_type":"text/plain","data":"aGVsbG8="}}'
const OTHER = '1-00000000000000000000000000000000'

t.test('where both proofs are asked for, a document is the same by content and by revision', async (t) => {
  const on = await setupDatabases(t)
  const components = on.couch.use(on.names.components)
  const revisions: Record<string, string> = {}
  const ids = ['same', 'revision', 'content', 'spelled', 'spelled_revision', 'attached', 'attached_revision']
  for (const _id of ids)
    revisions[_id] = (
      await components.insert({
        _id,
        a: 'a',
        ...(_id.startsWith('attached') && {
          _attachments: { a: { content_type: 'text/plain', data: 'aGVsbG8=' } }
        })
      } as never)
    ).rev
  const line = (_id: string, rev = revisions[_id], rest = '"a":"a"') =>
    readDocument(Buffer.from(`{"_id":"${_id}","_rev":"${rev}",${rest}}`))
  const source: RestoreSource = {
    proof: 'both',
    databases: ['components'],
    about: () => ({}),
    count: () => 8,
    bytes: () => undefined,
    async *documents(_database, design) {
      if (design) return
      yield [
        line('same'),
        line('revision', OTHER),
        line('content', revisions.content, '"a":"b"'),
        line('spelled', revisions.spelled, '"a":"\\u0061"'),
        line('spelled_revision', OTHER, '"a":"\\u0061"'),
        line('attached', revisions.attached, ATTACHED),
        line('attached_revision', OTHER, ATTACHED),
        line('absent', OTHER)
      ]
    },
    async close() {}
  }
  const db = new CouchDatabase(clientOf(t, on.url), on.names.components)
  const target = (await TargetView.find(db, () => false))!
  const scope = Scope.ofAll('components')
  const options = { source, database: 'components', scope, internalTypes: NONE, keepIds: NONE } as const
  const [partition] = partitionsOf(target, options)
  const plan = await RestorePlan.make(new Decider(target, NONE, scope), options, partition!)
  const found: Record<string, string> = {}
  for await (const decisions of plan.decisions(false))
    for (const { id, action } of decisions) found[id] = action
  t.strictSame(found, {
    same: 'leave',
    revision: 'change',
    content: 'change',
    spelled: 'leave',
    spelled_revision: 'change',
    attached: 'leave',
    attached_revision: 'change',
    absent: 'create'
  })
})
