import { Type } from '@sinclair/typebox'

/** What every refusal looks like: Fastify's shape, and the fields athena's clients know. */
export const ErrorReply = Type.Object(
  {
    statusCode: Type.Integer({ description: 'HTTP status' }),
    code: Type.Optional(Type.String({ description: 'Code for programs' })),
    error: Type.Optional(Type.String()),
    message: Type.Optional(Type.String({ description: 'What is wrong, naming the field' })),
    reason: Type.Optional(Type.String()),
    id: Type.Optional(
      Type.String({ description: 'Id of the backup, or transaction of the restore, that runs' })
    )
  },
  { description: 'Refused' }
)

/** Replies that every route may give. */
export const errorReplies = {
  400: ErrorReply,
  401: ErrorReply,
  403: ErrorReply,
  500: ErrorReply,
  502: ErrorReply,
  503: ErrorReply
}

export const BackupParams = Type.Object({
  backup_id: Type.String({
    pattern: '^03_ibp_db_backup_[0-9]{1,20}$',
    description: 'Id of the backup, such as 03_ibp_db_backup_1592924104038'
  })
})

export const NoQuery = Type.Object({}, { additionalProperties: false })

export const NoBody = Type.Object({}, { additionalProperties: false })
