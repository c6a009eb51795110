import { Type } from '@sinclair/typebox'

const SkipList = (description: string) =>
  Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())], { description }))

export const RestoreQuery = Type.Object(
  {
    skip_system: SkipList('Ids not to restore to the system database: ["00_settings_athena"]'),
    skip_components: SkipList('Ids not to restore to the components database: ["abcd"]')
  },
  { additionalProperties: false }
)

export const RestoreBody = Type.Object(
  {
    client_webhook_url: Type.Optional(
      Type.String({ description: 'Receives a POST when the restore has ended' })
    )
  },
  { additionalProperties: false }
)

const Database = Type.Object({
  docs: Type.Optional(Type.Array(Type.Object({ _id: Type.String() }, { additionalProperties: true }))),
  compressed_docs: Type.Optional(
    Type.String({ description: 'base64 of the deflated JSON array of documents' })
  )
})

/** The upload as it is described; it is read as a stream, and checked by the reader. */
export const UploadBody = Type.Object(
  {
    client_webhook_url: Type.Optional(Type.String()),
    dbs: Type.Record(Type.String(), Database)
  },
  { additionalProperties: true, description: 'A backup as the get-backup API sends it' }
)

export const RestoreStarted = Type.Object(
  {
    message: Type.Literal('in-progress'),
    url: Type.String({ description: 'Where to read how the restore is going' })
  },
  { description: 'The restore has started' }
)
