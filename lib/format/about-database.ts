import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { BackupNotRestorableError, InvalidBackupError } from '../errors.js'
import { allUnreadable } from '../repository/unreadable.js'

/** CouchDB creates as many shard files as it is asked for. */
const MAX_SHARDS = 1024

const ABOUT = {
  partitioned: Type.Boolean({ description: 'true or false' }),
  q: Type.Integer({
    minimum: 1,
    maximum: MAX_SHARDS,
    description: `an integer from 1 to ${MAX_SHARDS}`
  }),
  missing: Type.Boolean({ description: 'true or false' }),
  excluded_types: Type.Array(Type.String(), { description: 'an array of strings' }),
  unreadable_count: Type.Integer({ minimum: 0, description: 'an integer' }),
  unreadable: Type.Array(
    Type.Object({ id: Type.String(), id_truncated: Type.Optional(Type.Boolean()), reason: Type.String() }),
    { description: 'an array of objects with "id" and "reason"' }
  )
}

/** A backup's information on a database beside its documents, as far as a restore uses it. */
export const AboutDatabase = Type.Partial(Type.Object(ABOUT))
export type AboutDatabase = Static<typeof AboutDatabase>

export const isAbout = (member: string): member is keyof typeof ABOUT => Object.hasOwn(ABOUT, member)

/** Checks one member of an upload, named `where` in messages. @throws InvalidBackupError */
export function checkAbout(member: keyof typeof ABOUT, value: unknown, where: string): AboutDatabase {
  const schema = ABOUT[member]
  if (!Value.Check(schema, value)) throw new InvalidBackupError(`"${where}" must be ${schema.description}`)
  return { [member]: value }
}

/** Returns the ids that an exact restore must keep. @throws BackupNotRestorableError if some are not named */
export function unreadableIds(about: AboutDatabase): string[] {
  const unreadable = allUnreadable(about)
  if (unreadable) return unreadable.map(({ id }) => id)
  throw new BackupNotRestorableError(
    `"exact" would delete documents that could not be backed up: the backup does not name all ${about.unreadable_count ?? 0} of them.`
  )
}
