import { type Static, type TSchema, type TUnsafe, Type } from '@sinclair/typebox'
import { BACKUP_ID } from '../own-documents.js'

export const EXAMPLE_BACKUP = '03_ibp_db_backup_1592924104038'
export const EXAMPLE_TX = '9f86d081884c7d659a2feaa0c55ad015'
export const EXAMPLE_WEBHOOK = 'http://localhost:3000/ak/api/v1/webhooks/txs/nboqur'

export const BackupId = Type.String({
  pattern: BACKUP_ID.source,
  description: 'Id of the backup',
  examples: [EXAMPLE_BACKUP]
})

export const BackupParams = Type.Object({ backup_id: BackupId })

export const NoQuery = Type.Object({}, { additionalProperties: false })

export const Count = (description: string) => Type.Integer({ description })

export const Milliseconds = (what: string) =>
  Type.Number({ description: `${what}, in milliseconds since the epoch` })

export type Examples<T> = Record<string, { summary: string; value: T }>

export interface ReplySchema<T extends TSchema> {
  description: string
  headers?: Record<string, object>
  content: { 'application/json': { schema: TUnsafe<Static<T>>; examples: Examples<Static<T>> } }
}

/** Makes a reference to a schema, by its `$id`, so that OpenAPI documents contain it once. */
export const ref = <T extends TSchema>(schema: T) => Type.Unsafe<Static<T>>({ $ref: `${schema.$id}#` })

/** Describes a reply. Fastify does not serialize by it. */
export const reply = <T extends TSchema>(
  description: string,
  schema: T,
  examples: Examples<Static<T>>,
  headers?: Record<string, object>
): ReplySchema<T> => ({
  description,
  ...(headers && { headers }),
  content: { 'application/json': { schema: ref(schema), examples } }
})
