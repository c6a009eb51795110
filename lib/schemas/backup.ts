import { Type } from '@sinclair/typebox'
import type { FullReason } from '../../types/backups.js'
import { byDatabase } from '../databases.js'
import { BackupId, Count, EXAMPLE_BACKUP, Milliseconds, reply } from './common.js'

export const BackupStarted = Type.Object(
  {
    message: Type.Literal('in-progress'),
    id: Type.String({ description: 'Id of the backup' }),
    url: Type.String({
      description:
        'Where to read the backup with an API key: always under `/ak/api/v2`, also when a session started the backup. A session reads it at `/api/v3/backups/<id>`.'
    })
  },
  { $id: 'DbBackupStarted', title: 'DbBackupStarted' }
)

export const backupStarted = reply('The backup has started', BackupStarted, {
  started: {
    summary: 'Started',
    value: {
      message: 'in-progress',
      id: EXAMPLE_BACKUP,
      url: `http://localhost:3000/ak/api/v2/backups/${EXAMPLE_BACKUP}`
    }
  }
})

export const BackupIds = Type.Object(
  { ids: Type.Array(Type.String(), { description: 'Oldest first' }) },
  { $id: 'DbBackupIds', title: 'DbBackupIds' }
)

export const backupIds = reply('The ids', BackupIds, {
  ids: { summary: 'One backup', value: { ids: [EXAMPLE_BACKUP] } }
})

export const AttachmentParams = Type.Object({
  backup_id: BackupId,
  att_name: Type.String({
    minLength: 1,
    description: 'Name of the attachment, at most 512 bytes. One of the same name is replaced.',
    examples: ['my-attachment']
  })
})

/** Parameters of the route that takes longer names, by a wildcard. */
export const LongNameParams = Type.Object({ backup_id: BackupId, '*': Type.String() })

export const AttachmentBody = Type.Object(
  { attachment: Type.String({ description: 'Stored as it is; hex or base 64 is recommended' }) },
  {
    additionalProperties: false,
    'x-examples': { base64: { summary: 'Base 64', value: { attachment: 'aGVsbG8=' } } }
  }
)

export const AttachmentStored = Type.Object(
  { message: Type.Literal('ok'), att_name: Type.String() },
  { $id: 'DbBackupAttachmentStored', title: 'DbBackupAttachmentStored' }
)

export const attachmentStored = reply('The attachment is stored', AttachmentStored, {
  stored: { summary: 'Stored', value: { message: 'ok', att_name: 'my-attachment' } }
})

const Document = Type.Object(
  { _id: Type.String() },
  { additionalProperties: true, description: 'A document as CouchDB sends it, with attachments inline' }
)

const FULL_REASONS: Record<FullReason, true> = {
  asked_for: true,
  no_base: true,
  earlier_layout: true,
  not_in_base: true,
  chain_too_long: true,
  not_told: true,
  other_database: true,
  created_again: true,
  purged: true,
  sequence_reset: true,
  excluded_types: true,
  unreadable_documents: true,
  mostly_changed: true,
  damaged_base: true,
  sealed_otherwise: true
}

const BackupDatabase = Type.Object({
  start_timestamp: Milliseconds('When its backup began'),
  finish_timestamp: Milliseconds('When its backup ended'),
  last_sequence: Type.String({ description: 'The update sequence whose state the backup holds' }),
  doc_count: Type.Optional(Count('Documents')),
  conflict_count: Type.Optional(Count('Documents of which only the winning revision is backed up')),
  partitioned: Type.Optional(Type.Boolean({ description: 'Whether the database was partitioned' })),
  q: Type.Optional(Type.Integer({ minimum: 1, description: "Number of the database's shards" })),
  excluded_types: Type.Optional(
    Type.Array(Type.String(), { description: 'Types of documents that were left out' })
  ),
  copies: Type.Optional(
    Type.Union([Type.Literal('behind'), Type.Literal('unchecked')], {
      description:
        'On a cluster: the replicas were not seen to agree before the database was read, so the latest changes may be missing'
    })
  ),
  missing: Type.Optional(
    Type.Literal(true, { description: 'The database did not exist: the backup holds nothing of it' })
  ),
  raw_bytes: Type.Optional(Count("Bytes of the documents' JSON")),
  stored_bytes: Type.Optional(
    Count('Bytes that the documents take in the backups database; other backups may share some of them')
  ),
  base: Type.Optional(
    Type.String({
      description: 'Id of the backup whose chunks this one shares; absent where the database was read in full'
    })
  ),
  full_reason: Type.Optional(
    Type.Unsafe<FullReason>({
      type: 'string',
      enum: Object.keys(FULL_REASONS),
      description: 'Why the database was read in full'
    })
  ),
  new_chunks: Type.Optional(Count('Chunks of documents that this backup has written')),
  reused_chunks: Type.Optional(Count('Chunks of documents that an earlier backup has written')),
  added_bytes: Type.Optional(Count('Bytes that this backup has added to the backups database')),
  wasted_bytes: Type.Optional(Count('Bytes of documents that no longer count, but are read with the others')),
  unreadable_count: Type.Optional(
    Count('Documents that the backup does not hold, since they could not be read or stored')
  ),
  unreadable: Type.Optional(
    Type.Array(
      Type.Object({
        id: Type.String({ description: 'Id of the document, or its first 512 bytes' }),
        id_truncated: Type.Optional(Type.Literal(true, { description: 'The id is longer than 512 bytes' })),
        reason: Type.String()
      }),
      { description: 'The first of these documents, at most 100' }
    )
  ),
  docs: Type.Array(Document)
})

const DamagedParts = Type.Object({
  parts: Type.Array(Type.String(), { description: 'Ids of the first parts, at most 20' }),
  count: Count('Damaged parts'),
  only_index: Type.Optional(
    Type.Literal(true, { description: 'The documents are whole, but no backup can be based on this one' })
  )
})

export const Backup = Type.Object(
  {
    id: Type.String(),
    backup_version: Type.String(),
    ibp_versions: Type.Unsafe<Record<string, unknown>>(
      Type.Object(
        {},
        { additionalProperties: true, description: 'Versions of the application that was backed up' }
      )
    ),
    requester: Type.Optional(
      Type.Object(
        { name: Type.Optional(Type.String()), uuid: Type.Optional(Type.String()) },
        { description: 'Who asked for the backup. Absent for a scheduled backup' }
      )
    ),
    note: Type.Optional(Type.String({ description: 'What the backup was made for' })),
    protected: Type.Optional(Type.Literal(true, { description: 'Pruning keeps the backup' })),
    doc_count: Count('Documents stored; while the backup is running, those stored so far'),
    in_progress: Type.Boolean({ description: 'While true, the backup is sent without documents' }),
    type: Type.Literal('athena_backup'),
    start_timestamp: Milliseconds('When the backup began'),
    end_timestamp: Type.Optional(Milliseconds('When the backup ended')),
    elapsed: Type.Optional(Type.String({ description: 'How long the backup took, as text' })),
    unreadable_count: Type.Optional(
      Count('Documents that could not be backed up, in all databases. `dbs` names them.')
    ),
    missing_databases: Type.Optional(
      Type.Array(Type.String(), {
        description: 'Keys in `dbs` of databases that did not exist. Is a name mistyped in the configuration?'
      })
    ),
    base: Type.Optional(
      Type.String({
        description:
          'Id of the backup whose chunks this one shares; absent where all databases were read in full'
      })
    ),
    chain_length: Type.Optional(Count('Backups in the chain before this one; 0 for a full backup')),
    added_bytes: Type.Optional(
      Count('Bytes that this backup has added to the backups database, besides its header')
    ),
    sealed: Type.Optional(
      Type.String({
        description: 'Id of the key that the backup is sealed with; absent where it is not sealed'
      })
    ),
    damaged: Type.Optional(
      Type.Object(
        {
          found: Milliseconds('When damage was first found'),
          databases: Type.Object(byDatabase(() => Type.Optional(DamagedParts)))
        },
        {
          description:
            'What verifications found to be damaged. The next backup reads these databases in full, and pruning does not count this one as good'
        }
      )
    ),
    verified: Type.Optional(
      Type.Object(
        {
          at: Milliseconds('When the verification ended'),
          depth: Type.Union([Type.Literal('structure'), Type.Literal('data'), Type.Literal('restore')]),
          good: Type.Boolean({ description: 'Whether nothing was wrong' })
        },
        { description: 'The last verification that was not interrupted' }
      )
    ),
    error: Type.Optional(Type.String({ description: 'Why the backup failed. It holds no documents.' })),
    dbs: Type.Record(Type.String(), BackupDatabase, {
      description: 'The databases that the backup has read: athena_components, athena_sessions, athena_system'
    }),
    _attachments: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'Attachments that clients have appended, by name, in base 64'
      })
    )
  },
  { $id: 'DbBackup', title: 'DbBackup' }
)

const HEAD = {
  id: EXAMPLE_BACKUP,
  backup_version: '1.0.0',
  ibp_versions: { tag: '2.5.0-26' },
  requester: { name: 'a****@example.com', uuid: 'g4zrlQ1TnTqL' },
  type: 'athena_backup',
  start_timestamp: 1592924104038
} as const

const exampleDatabase = (start: number, docs: { _id: string; [key: string]: unknown }[]) => ({
  start_timestamp: start,
  finish_timestamp: start + 1052,
  last_sequence: '6-g1AAAACbeJzLYWBgYMpgTmEQTM4vTc5ISXIwNDLXMwBCwxyQVCJDUv3___-zMpgTGXKBAuxJaUmJiUap',
  doc_count: docs.length,
  conflict_count: 0,
  partitioned: false,
  q: 2,
  excluded_types: ['session_athena', 'pillow_talk_doc', 'json_validation'],
  raw_bytes: JSON.stringify(docs).length - 2,
  stored_bytes: 197,
  full_reason: 'no_base' as const,
  new_chunks: 1,
  reused_chunks: 0,
  added_bytes: 197,
  wasted_bytes: 0,
  docs
})

export const EXAMPLE_BACKUP_DOCUMENT = {
  ...HEAD,
  doc_count: 2,
  in_progress: false,
  end_timestamp: 1592924127838,
  elapsed: '23.8 secs',
  chain_length: 0,
  added_bytes: 591,
  dbs: {
    athena_components: exampleDatabase(1592924104041, [
      { _id: 'org1peer', _rev: '1-967a00dff5e02add41819138abb3284d', type: 'fabric-peer' }
    ]),
    athena_sessions: exampleDatabase(1592924111653, []),
    athena_system: exampleDatabase(1592924119910, [
      { _id: '00_settings_athena', _rev: '2-7051cbe5c8faecd085a3fa619e6e6337', type: 'settings' }
    ])
  },
  _attachments: { 'my-attachment': 'YUdWc2JHOD0=' }
}

export const backup = reply(
  'The backup, as a stream. A body without its closing brace is not a backup: a stored part was damaged.',
  Backup,
  {
    finished: { summary: 'Finished', value: EXAMPLE_BACKUP_DOCUMENT },
    protected: {
      summary: 'Protected, with a note',
      value: { ...EXAMPLE_BACKUP_DOCUMENT, note: 'before the upgrade to 2.6', protected: true }
    },
    running: {
      summary: 'Running',
      value: { ...HEAD, doc_count: 1200, in_progress: true, dbs: {} }
    },
    failed: {
      summary: 'Failed',
      value: {
        ...HEAD,
        doc_count: 0,
        in_progress: false,
        end_timestamp: 1592924108038,
        elapsed: '4.0 secs',
        error: 'interrupted: the server was shut down',
        dbs: {}
      }
    }
  },
  {
    ETag: {
      type: 'string',
      description:
        'Replies with the same tag have the same bytes; weak (`W/"..."`) with gzip, whose bytes may differ'
    },
    'Content-Encoding': { type: 'string', description: '`gzip`, for clients that prefer it' },
    Vary: { type: 'string', description: '`Accept-Encoding`' },
    'Accept-Ranges': { type: 'string', description: '`bytes`, when the length of the backup is known' }
  }
)

const Header = (description: string, example: string) =>
  Type.Optional(Type.String({ description, examples: [example] }))

const EXAMPLE_ETAG = '"4-2f1b6d3c9a7e4f5d8b0a1c2d3e4f5a6b.1"'

export const RangeHeaders = Type.Object({
  range: Header('The first byte to send. Ranges of other forms are ignored.', 'bytes=1000000-'),
  'if-range': Header(
    'The `ETag` of the bytes that the client has: if it no longer matches, the whole backup is sent',
    EXAMPLE_ETAG
  ),
  'if-none-match': Header(
    'The `ETag` of the backup that the client has: if it still matches, the reply is 304',
    EXAMPLE_ETAG
  ),
  'accept-encoding': Header(
    'A whole backup is sent as gzip if this prefers gzip to `identity`; a range never is',
    'gzip'
  )
})
