import { Type } from '@sinclair/typebox'
import { byDatabase } from '../databases.js'
import { BackupId } from '../schemas/common.js'

const closed = { additionalProperties: false }

/** Bytes of the JSON body of a request: lists of ids may be long. */
export const MOST_BYTES = 4 * 1024 * 1024

/** Characters of the position of a verification, which holds up to 1,000 damaged parts and their reasons. */
const MOST_POSITION = 3 * 1024 * 1024

const Flag = Type.Optional(Type.Boolean())
const Strings = Type.Array(Type.String({ minLength: 1 }), { maxItems: 100_000 })

export const ById = Type.Object({ id: BackupId }, closed)
export const ByTransaction = Type.Object({ tx: Type.String({ pattern: '^[\\w-]{1,128}$' }) }, closed)

export const OverviewQuery = Type.Object(
  { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000 })) },
  closed
)

export const StartBody = Type.Object(
  { note: Type.Optional(Type.String({ maxLength: 1024 })), protect: Flag, full: Flag },
  closed
)

export const PruneBody = Type.Object({ dryRun: Flag }, closed)

export const DiffQuery = Type.Object(
  {
    against: Type.Union([Type.Literal('now'), BackupId]),
    values: Type.Optional(Type.Boolean())
  },
  closed
)

export const VerifyBody = Type.Object(
  {
    depth: Type.Optional(
      Type.Union([Type.Literal('structure'), Type.Literal('data'), Type.Literal('restore')])
    ),
    from: Type.Optional(Type.String({ maxLength: MOST_POSITION }))
  },
  closed
)

const Choice = Type.Object(
  {
    ids: Type.Optional(Strings),
    types: Type.Optional(Strings),
    selector: Type.Optional(Type.Record(Type.String(), Type.Unknown()))
  },
  closed
)

const choices = {
  only: Type.Optional(
    Type.Object(
      byDatabase(() => Type.Optional(Choice)),
      { ...closed, minProperties: 1 }
    )
  ),
  exclude: Type.Optional(
    Type.Object(
      byDatabase(() => Type.Optional(Choice)),
      closed
    )
  ),
  skip: Type.Optional(
    Type.Object(
      byDatabase(() => Type.Optional(Strings)),
      closed
    )
  ),
  exact: Flag
}

export const PreviewBody = Type.Object(choices, closed)

export const RestoreBody = Type.Object({ ...choices, safety: Flag }, closed)

const SkipList = Type.Optional(Type.Union([Strings, Type.String({ minLength: 1 })]))

export const UploadQuery = Type.Object(
  { skip_components: SkipList, skip_sessions: SkipList, skip_system: SkipList },
  closed
)

export const CancelBody = Type.Object({ id: Type.String({ minLength: 1, maxLength: 256 }) }, closed)
