import { type Static, type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { malformed } from './errors.js'

const Optional = Type.Optional
const Ids = Type.Array(Type.String())
const Opaque = Optional(Type.Union([Type.String(), Type.Number()]))

/** Shapes of CouchDB's small answers, as far as they are used. */
export const Info = Type.Object({
  doc_count: Type.Number(),
  /** Absent where the server does not count them. */
  doc_del_count: Optional(Type.Number()),
  /** Another one when the database was created again; in CouchDB 2 always `"0"`. */
  instance_start_time: Optional(Type.String()),
  /** Begins with the number of purges. Opaque beyond that. */
  purge_seq: Opaque,
  /** Begins with the number of changes. Opaque beyond that. */
  update_seq: Opaque,
  props: Optional(Type.Object({ partitioned: Optional(Type.Boolean()) })),
  /** Shards, and replicas of each. */
  cluster: Optional(Type.Object({ q: Optional(Type.Number()), n: Optional(Type.Number()) }))
})
export const Written = Type.Object({ rev: Type.String() })
export const BulkResults = Type.Array(
  Type.Object({
    id: Type.String(),
    rev: Optional(Type.String()),
    accepted: Optional(Type.Boolean()),
    /** Any value: functions of design documents make them. */
    error: Optional(Type.Unknown()),
    reason: Optional(Type.Unknown())
  })
)
/** An error of a `_bulk_get` row. */
export const Refused = Type.Object({ error: Optional(Type.Unknown()), reason: Optional(Type.Unknown()) })
/** A `_bulk_get` of one document. */
export const LeafResults = Type.Object({
  results: Type.Array(
    Type.Object({
      docs: Type.Array(
        Type.Object({
          ok: Optional(Type.Record(Type.String(), Type.Unknown())),
          error: Optional(Refused)
        })
      )
    }),
    { minItems: 1 }
  )
})
export const Query = Type.Object({ docs: Type.Array(Type.Unknown()) })
export const RevsDiff = Type.Record(Type.String(), Type.Object({ missing: Optional(Ids) }))
export const Membership = Type.Object({ all_nodes: Ids })
export const System = Type.Object({ uptime: Type.Number() })
export const Shards = Type.Object({ shards: Type.Record(Type.String(), Ids) })
export const ShardInfo = Type.Object({ uuid: Type.String() })
export const ShardChanges = Type.Object({ results: Type.Array(Type.Object({ seq: Type.Number() })) })
/** A note that a replica has what another one had at `source_seq`. */
export const Checkpoint = Type.Object({
  target_uuid: Type.String(),
  source_uuid: Type.String(),
  source_seq: Type.Number()
})
export const Checkpoints = Type.Object({
  rows: Type.Array(
    Type.Object({
      doc: Optional(Type.Object({ history: Optional(Type.Record(Type.String(), Type.Array(Checkpoint))) }))
    })
  )
})

export type DatabaseInfo = Static<typeof Info>

/** Returns an answer that has the shape of `schema`. @throws CouchError (retryable) */
export function checked<S extends TSchema>(schema: S, answer: unknown, where: string): Static<S> {
  if (Value.Check(schema, answer)) return answer
  const wrong = Value.Errors(schema, answer).First()?.path.slice(0, 120)
  throw malformed(where, wrong ? `usable ${wrong}` : 'usable value')
}
