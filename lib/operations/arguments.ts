import { type ObjectOptions, type Static, type TSchema, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { CopyOptions, RestoreOptions } from '../../types/backups.js'
import { checkCouch } from '../couch/connection.js'
import { byDatabase, DATABASE_NAME, LOGICAL_DATABASES } from '../databases.js'
import { InvalidParameterError } from '../errors.js'
import { checkSelectors } from '../restore/scope.js'

const Flag = Type.Optional(Type.Boolean())
const Ids = Type.Optional(Type.Array(Type.String()))
/** The host may pass anything as requester; it is cut to size. */
const Requester = Type.Optional(Type.Unknown())
/** `checkSignal` checks it. */
const Signal = Type.Optional(Type.Unsafe<AbortSignal>(Type.Any()))
const closed = { additionalProperties: false }

// The compiler compares them with the types of the arguments (test/types/schemas.ts).
export const Start = Type.Object(
  {
    full: Flag,
    requester: Requester,
    note: Type.Optional(Type.String({ maxLength: 1024 })),
    protect: Flag
  },
  closed
)
const ByDatabase = <T extends TSchema>(schema: T, options: ObjectOptions = {}) => {
  const member = Type.Optional(schema)
  return Type.Optional(
    Type.Object(
      byDatabase(() => member),
      { ...closed, ...options }
    )
  )
}
const Choice = Type.Object(
  // `parseSelector` checks it.
  { ids: Ids, types: Ids, selector: Type.Optional(Type.Record(Type.String(), Type.Unknown())) },
  closed
)
export const Restore = Type.Object(
  {
    skip: ByDatabase(Type.Array(Type.String())),
    only: ByDatabase(Choice, { minProperties: 1 }),
    exclude: ByDatabase(Choice),
    safety: Flag,
    onChange: Type.Optional(Type.Unknown()),
    clientWebhookUrl: Type.Optional(Type.String()),
    dryRun: Flag,
    exact: Flag,
    requester: Requester
  },
  closed
)
export const Prune = Type.Object(
  {
    // `checkKeep` checks it.
    keep: Type.Optional(Type.Unknown()),
    keepFailed: Type.Optional(Type.Integer({ minimum: 0 })),
    dryRun: Flag,
    legacy: Flag,
    orphans: Flag
  },
  closed
)
export const Verify = Type.Object(
  {
    depth: Type.Optional(
      Type.Union([Type.Literal('structure'), Type.Literal('data'), Type.Literal('restore')])
    ),
    from: Type.Optional(Type.String()),
    signal: Signal
  },
  closed
)
export const Diff = Type.Object(
  {
    against: Type.String(),
    databases: Type.Optional(
      Type.Array(Type.Union(LOGICAL_DATABASES.map((database) => Type.Literal(database))))
    ),
    values: Flag,
    signal: Signal
  },
  closed
)
export const Copy = Type.Object(
  {
    to: Type.Object(
      {
        // `checkCouch` checks it.
        couch: Type.Unsafe<CopyOptions['to']['couch']>(Type.Unknown()),
        database: Type.String({ pattern: DATABASE_NAME.source })
      },
      closed
    ),
    signal: Signal
  },
  closed
)
export const Cancel = Type.Object({ requester: Requester }, closed)
export const RestoresAsked = Type.Object(
  { limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100 })) },
  closed
)
export const Attach = Type.Object({ contentType: Type.Optional(Type.String()) }, closed)

/** @throws InvalidParameterError that names the option of `start()` */
export function checkStartOptions(options: unknown): void {
  check(Start, options)
  const { note = '' } = options as Static<typeof Start>
  if (!note.isWellFormed()) throw new InvalidParameterError('options/note: is not well-formed Unicode')
}

/** @throws InvalidParameterError that names the option of `restore()` */
export function checkRestoreOptions(options: unknown): void {
  check(Restore, options)
  const { only, exclude, onChange, dryRun } = options as RestoreOptions
  checkSelectors('only', only)
  checkSelectors('exclude', exclude)
  if (onChange === undefined) return
  if (typeof onChange !== 'function') throw new InvalidParameterError('options/onChange: expected function')
  if (!dryRun) throw new InvalidParameterError('options/onChange: is only for a dry run (dryRun: true)')
}

/** @throws InvalidParameterError that names the option of `prune()` */
export const checkPruneOptions = (options: unknown): void => check(Prune, options)

/** @throws InvalidParameterError that names the option of `verify()` */
export function checkVerifyOptions(options: unknown): void {
  check(Verify, options)
  checkSignal(options as Static<typeof Verify>)
}

/** @throws InvalidParameterError that names the argument of `diff()` */
export function checkDiff(id: unknown, options: unknown): void {
  if (typeof id !== 'string') throw new InvalidParameterError('id must be a string')
  check(Diff, options)
  checkSignal(options as Static<typeof Diff>)
}

/** @throws InvalidParameterError that names the argument of `copy()` */
export function checkCopy(options: unknown): void {
  check(Copy, options)
  const { to, signal } = options as Static<typeof Copy>
  try {
    checkCouch(to.couch)
  } catch (error) {
    throw new InvalidParameterError(`options/to/couch: ${(error as Error).message}`)
  }
  checkSignal({ signal })
}

/** @throws InvalidParameterError that names the argument of `cancel()` */
export function checkCancel(id: unknown, options: unknown): void {
  if (typeof id !== 'string') throw new InvalidParameterError('id must be a string')
  check(Cancel, options)
}

/** @throws InvalidParameterError that names the option of `restores()` */
export const checkRestores = (options: unknown): void => check(RestoresAsked, options)

function checkSignal({ signal }: { signal?: unknown }): void {
  if (signal !== undefined && !(signal instanceof AbortSignal))
    throw new InvalidParameterError('options/signal: expected an AbortSignal')
}

/** @throws InvalidParameterError that names the argument of `attach()` */
export function checkAttach(name: unknown, data: unknown, options: unknown): void {
  if (typeof name !== 'string') throw new InvalidParameterError('name must be a string')
  if (typeof data !== 'string' && !(data instanceof Uint8Array))
    throw new InvalidParameterError('data must be a string or a Buffer')
  check(Attach, options)
}

/** @throws InvalidParameterError unless a restore is given an id or a stream */
export function checkSource(source: unknown): void {
  const { id, body } = (source ?? {}) as { id?: unknown; body?: unknown }
  if ((id === undefined) === (body === undefined))
    throw new InvalidParameterError('a restore takes { id } or { body }')
  if (id !== undefined && typeof id !== 'string') throw new InvalidParameterError('id must be a string')
  if (body !== undefined && !isStream(body))
    throw new InvalidParameterError(
      'body must be a stream of Node.js: keep parsers away from a route that restores uploads, and make a web stream one with Readable.fromWeb()'
    )
}

const isStream = (body: unknown): boolean =>
  (['on', 'iterator', 'destroy'] as const).every(
    (method) => typeof (body as Record<string, unknown> | null)?.[method] === 'function'
  )

function check(schema: TSchema, value: unknown): void {
  const [problem] = Value.Errors(schema, value)
  if (problem) throw new InvalidParameterError(`options${problem.path}: ${problem.message.toLowerCase()}`)
}
