import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { InvalidBackupError } from '../errors.js'

/** CouchDB makes as many files as it is asked for. */
const MAX_SHARDS = 1024

const ABOUT = {
  partitioned: Type.Boolean({ description: 'true or false' }),
  q: Type.Integer({
    minimum: 1,
    maximum: MAX_SHARDS,
    description: `an integer from 1 to ${MAX_SHARDS}`
  }),
  excluded_types: Type.Array(Type.String(), { description: 'an array of strings' })
}

/** What a backup tells of a database beside its documents, as far as a restore goes by it. */
export const AboutDatabase = Type.Partial(Type.Object(ABOUT))
export type AboutDatabase = Static<typeof AboutDatabase>

export const isAbout = (member: string): member is keyof typeof ABOUT => Object.hasOwn(ABOUT, member)

/**
 * Checks one member of an upload.
 * @param where names it in the message
 * @throws InvalidBackupError
 */
export function checkAbout(member: keyof typeof ABOUT, value: unknown, where: string): AboutDatabase {
  const schema = ABOUT[member]
  if (!Value.Check(schema, value)) throw new InvalidBackupError(`"${where}" must be ${schema.description}`)
  return { [member]: value }
}
