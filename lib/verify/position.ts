import { type Static, Type } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import type { VerifyDepth } from '../../types/verify.js'
import { byDatabase } from '../databases.js'
import { InvalidParameterError } from '../errors.js'
import { parsed } from '../json/parsed.js'
import type { LoadedBackup } from '../repository/loaded-backup.js'

const Count = Type.Integer({ minimum: 0 })
const Finding = Type.Object({
  part: Type.Union([
    Type.Literal('header'),
    Type.Literal('manifest'),
    Type.Literal('chunk'),
    Type.Literal('index')
  ]),
  id: Type.String(),
  reason: Type.String(),
  documents: Type.Optional(Type.Array(Type.String()))
})
const ofDatabases = <T extends ReturnType<typeof Type.Optional>>(make: () => T) =>
  Type.Object(byDatabase(make))

const State = Type.Object({
  version: Type.Literal(1),
  id: Type.String(),
  /** The backup's `contentDigest`. */
  content: Type.String(),
  depth: Type.String(),
  /** How many databases are done. */
  databases: Count,
  /** How many chunks of the next database are done. */
  chunks: Count,
  counts: ofDatabases(() => Type.Optional(Type.Object({ chunks: Count, documents: Count, bytes: Count }))),
  findings: ofDatabases(() => Type.Optional(Type.Array(Finding))),
  ms: Type.Number({ minimum: 0 })
})

/** How far a verification has come, and what it has found. */
export type VerifyState = Static<typeof State>

export const newState = ({ id, contentDigest }: LoadedBackup, depth: VerifyDepth): VerifyState => ({
  version: 1,
  id,
  content: contentDigest,
  depth,
  databases: 0,
  chunks: 0,
  counts: {},
  findings: {},
  ms: 0
})

/** Encodes a state as text, for the caller to keep. */
export const positionOf = (state: VerifyState): string =>
  Buffer.from(JSON.stringify(state)).toString('base64url')

/** Decodes a position. @throws InvalidParameterError when it is not one of this backup at this depth */
export function stateAt(position: string, backup: LoadedBackup, depth: VerifyDepth): VerifyState {
  const state = parsed(Buffer.from(position, 'base64url').toString())
  if (!Value.Check(State, state)) throw new InvalidParameterError('options/from is not a position')
  const { id, content, depth: asked } = newState(backup, depth)
  if (state.id !== id || state.content !== content || state.depth !== asked)
    throw new InvalidParameterError('options/from is of another backup, or of another depth')
  return state
}
