import { type ObjectOptions, type TSchema, Type } from '@sinclair/typebox'
import { byDatabase, LOGICAL_DATABASES } from '../databases.js'
import { TRANSACTION_TYPE } from '../own-documents.js'
import { Count, EXAMPLE_BACKUP, EXAMPLE_TX, Milliseconds, ref } from './common.js'

const DatabaseCounts = Type.Object({
  total: Count('Documents that the backup holds'),
  created: Count('Written where there was no document of that id'),
  changed: Count('Written over a document that differed'),
  unchanged: Count('Left alone: the database holds the same content'),
  skipped: Count('Left out: on a skip list, internal, or deleted'),
  failed: Count('Not written; see failures'),
  deleted: Count('Deleted because the backup does not hold them')
})

const UnknownIds = Type.Object({
  count: Count('How many'),
  ids: Type.Array(Type.String(), { description: 'The first of these ids' })
})

const Change = Type.Union([Type.Literal('created'), Type.Literal('changed'), Type.Literal('deleted')])

const DATABASES = LOGICAL_DATABASES.map((database) => Type.Literal(database))

const ByDatabase = <T extends TSchema>(schema: T, options?: ObjectOptions) => {
  const member = Type.Optional(schema)
  return Type.Optional(
    Type.Object(
      byDatabase(() => member),
      options
    )
  )
}

export const Transaction = Type.Object(
  {
    tx_id: Type.String(),
    type: Type.Literal(TRANSACTION_TYPE),
    sub_type: Type.Literal('backup_restore'),
    description: Type.String(),
    status: Type.Union([Type.Literal('pending'), Type.Literal('success'), Type.Literal('error')]),
    by: Type.String({ description: 'Who asked for the restore' }),
    uuid: Type.String(),
    url: Type.String({ description: 'Where to read the transaction' }),
    ts_started: Milliseconds('When the restore began'),
    ts_last_updated: Milliseconds('When the transaction was changed last'),
    ts_completed: Type.Optional(Milliseconds('When the restore ended')),
    on_step: Type.Integer(),
    total_steps: Type.Integer(),
    athena_messages: Type.Array(Type.String(), { description: 'What the restore did, and what went wrong' }),
    timeout_ms: Type.Integer(),
    backup_id: Type.Optional(Type.String({ description: 'Id of the backup; absent for an upload' })),
    dry_run: Type.Optional(Type.Boolean()),
    databases: ByDatabase(DatabaseCounts),
    failures: Type.Optional(
      Type.Array(
        Type.Object({
          database: Type.Union(DATABASES),
          id: Type.String(),
          error: Type.String(),
          reason: Type.String()
        }),
        { description: 'The first documents that were not written' }
      )
    ),
    skip_unknown: ByDatabase(UnknownIds, {
      description: 'Ids in skip lists or `exclude` that no document has'
    }),
    settings_documents: Type.Optional(
      Type.Array(
        Type.Object({
          id: Type.String(),
          change: Change
        }),
        { description: "Documents with the console's settings that the restore changes" }
      )
    ),
    only_unknown: ByDatabase(UnknownIds, { description: 'Ids in `only` that no document has' }),
    safety_backup: Type.Optional(
      Type.String({
        description:
          'Id of the backup that was made before the first write. Restoring it exactly takes this restore back'
      })
    ),
    changes: Type.Optional(
      Type.Array(Type.Object({ database: Type.Union(DATABASES), id: Type.String(), change: Change }), {
        description: 'The first documents that the restore would create, change or delete; of dry runs only'
      })
    ),
    changes_count: Type.Optional(Count('How many documents the restore would create, change or delete'))
  },
  { $id: 'DbRestoreTransaction', title: 'DbRestoreTransaction' }
)

const counts = (total: number, created: number) => ({
  total,
  created,
  changed: 0,
  unchanged: total - created,
  skipped: 0,
  failed: 0,
  deleted: 0
})

const EXAMPLE = {
  tx_id: EXAMPLE_TX,
  type: TRANSACTION_TYPE,
  sub_type: 'backup_restore',
  description: 'restoring dbs from backup',
  status: 'success',
  by: 'admin@example.com',
  uuid: 'g4zrlQ1TnTqL',
  url: `http://localhost:3000/ak/api/v1/webhooks/txs/${EXAMPLE_TX}`,
  ts_started: 1592924104038,
  ts_last_updated: 1592924107214,
  ts_completed: 1592924107214,
  on_step: 5,
  total_steps: 5,
  athena_messages: [
    'checking the backup',
    'restoring 1 documents of components',
    'restoring 0 documents of sessions',
    'restoring 1 documents of system',
    'rebuilding the component white list',
    'the restore is done'
  ],
  timeout_ms: 600000,
  backup_id: EXAMPLE_BACKUP,
  databases: { components: counts(1, 1), sessions: counts(0, 0), system: counts(1, 0) },
  failures: []
}

export const clientWebhookCallback = {
  restoreEnded: {
    '{$request.body#/client_webhook_url}': {
      post: {
        requestBody: {
          required: true,
          content: {
            'application/json': {
              schema: ref(Transaction),
              examples: { success: { summary: 'Restored', value: EXAMPLE } }
            }
          }
        },
        responses: {
          '2XX': { description: 'Accepted. After another status, or no reply, the request is sent again.' }
        }
      }
    }
  }
}
