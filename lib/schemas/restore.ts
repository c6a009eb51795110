import { Type } from '@sinclair/typebox'
import { EXAMPLE_BACKUP_DOCUMENT } from './backup.js'
import { EXAMPLE_TX, EXAMPLE_WEBHOOK, reply } from './common.js'

const SkipList = (database: string, example: string) =>
  Type.Optional(
    Type.Union([Type.String(), Type.Array(Type.String())], {
      description:
        `Ids of documents not to restore to the ${database} database: a JSON array, or ids with commas between them; ` +
        'may be repeated. An id with a comma needs an array. `skip_unknown` of the transaction names ids that no document has.',
      examples: [example]
    })
  )

export const RestoreQuery = Type.Object(
  {
    skip_system: SkipList('system', '["00_settings_athena"]'),
    skip_components: SkipList('components', '["abcd"]')
  },
  { additionalProperties: false }
)

const ClientWebhook = Type.Optional(
  Type.String({ description: 'Receives a POST of the transaction when the restore has ended' })
)

export const RestoreBody = Type.Object(
  { client_webhook_url: ClientWebhook },
  {
    additionalProperties: false,
    description: 'May be empty',
    'x-examples': {
      webhook: { summary: 'With a webhook', value: { client_webhook_url: EXAMPLE_WEBHOOK } },
      empty: { summary: 'Without', value: {} }
    }
  }
)

const UploadedDatabase = Type.Object({
  docs: Type.Optional(Type.Array(Type.Object({ _id: Type.String() }, { additionalProperties: true }))),
  compressed_docs: Type.Optional(
    Type.String({ description: 'Instead of docs: base 64 of the deflated JSON array of documents' })
  )
})

/** Describes an upload, and does not validate it: the body is streamed, and its reader checks it. */
export const UploadBody = Type.Object(
  {
    client_webhook_url: ClientWebhook,
    dbs: Type.Record(Type.String(), UploadedDatabase, {
      description: 'The databases to restore, named as in a backup'
    })
  },
  {
    additionalProperties: true,
    description:
      'A backup as it was downloaded, of any size; UTF-8, or the gzip of it with `Content-Encoding: gzip`. ' +
      'All of it is checked before anything is written.',
    'x-examples': {
      backup: {
        summary: 'A downloaded backup',
        value: { client_webhook_url: EXAMPLE_WEBHOOK, ...EXAMPLE_BACKUP_DOCUMENT }
      },
      compressed: {
        summary: 'An older backup',
        value: {
          dbs: {
            DB_COMPONENTS: {
              compressed_docs: 'eJyLrlaKz0xRslLKL0o3LEhNLVLSUSqpLEhVslJKS0wqykzWBQvWxgIAGRYNtA=='
            }
          }
        }
      }
    }
  }
)

export const RestoreStarted = Type.Object(
  {
    message: Type.Literal('in-progress'),
    url: Type.String({
      description:
        'Where to read the transaction with an API key: always under `/ak/api/v1`, also when a session started the restore. For sessions, the host may serve it elsewhere, under the same id.'
    })
  },
  { $id: 'DbRestoreStarted', title: 'DbRestoreStarted' }
)

export const restoreStarted = reply('The restore has started', RestoreStarted, {
  started: {
    summary: 'Started',
    value: { message: 'in-progress', url: `http://localhost:3000/ak/api/v1/webhooks/txs/${EXAMPLE_TX}` }
  }
})
