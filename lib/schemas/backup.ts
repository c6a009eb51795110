import { Type } from '@sinclair/typebox'

export const BackupStarted = Type.Object(
  {
    message: Type.Literal('in-progress'),
    id: Type.String(),
    url: Type.String({ description: 'Where to read the backup' })
  },
  { description: 'The backup has started' }
)

export const BackupIds = Type.Object({ ids: Type.Array(Type.String()) }, { description: 'Ids, oldest first' })

export const AttachmentParams = Type.Object({
  backup_id: Type.String({ pattern: '^03_ibp_db_backup_[0-9]{1,20}$' }),
  att_name: Type.String({ minLength: 1, description: 'Name of the attachment' })
})

export const AttachmentBody = Type.Object(
  { attachment: Type.String({ description: 'Stored as it is; hex or base 64 is recommended' }) },
  { additionalProperties: false }
)

export const AttachmentStored = Type.Object({ message: Type.Literal('ok'), att_name: Type.String() })

const Milliseconds = Type.Number({ description: 'Milliseconds since the epoch' })

const BackupDatabase = Type.Object(
  {
    start_timestamp: Milliseconds,
    finish_timestamp: Milliseconds,
    last_sequence: Type.String(),
    docs: Type.Array(Type.Object({ _id: Type.String() }, { additionalProperties: true }))
  },
  { additionalProperties: true }
)

/** What the get-backup API sends; it is streamed, not serialized by this schema. */
export const Backup = Type.Object(
  {
    id: Type.String(),
    backup_version: Type.String(),
    ibp_versions: Type.Object({}, { additionalProperties: true }),
    doc_count: Type.Integer(),
    in_progress: Type.Boolean(),
    type: Type.Literal('athena_backup'),
    start_timestamp: Milliseconds,
    end_timestamp: Type.Optional(Milliseconds),
    elapsed: Type.Optional(Type.String()),
    error: Type.Optional(Type.String({ description: 'Why the backup is not usable' })),
    dbs: Type.Record(Type.String(), BackupDatabase),
    _attachments: Type.Optional(Type.Record(Type.String(), Type.String({ description: 'base64' })))
  },
  { description: 'The whole backup' }
)
