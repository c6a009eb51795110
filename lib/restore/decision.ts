import { type DocumentBytes, piecesWithRevision } from '../json/document.js'
import type { Steps } from '../waits/steps.js'
import { headOf, type SourceDocument } from './source.js'

/** The base on which an absent document is written. `kept`: its own revision, new to the database. `none`: none. */
export type NewBase = { kind: 'kept'; rev: string } | { kind: 'none' }

type LiveBase = { kind: 'over'; rev: string }

export type BaseRevision = NewBase | LiveBase

export const NO_BASE = { kind: 'none' } as const

type Creation = { action: 'create'; id: string; document: SourceDocument; base: NewBase }

/** A decision to write. `compared`: how the document differs from the target's, if somebody asked for that. */
export type DecidedWrite<T = unknown> =
  | Creation
  | { action: 'change'; id: string; document: SourceDocument; base: LiveBase; compared?: T }

/** A document that cannot be restored or deleted, and why. */
export interface Failure {
  action: 'fail'
  id: string
  error: string
  reason: string
}

/** The target has the same content. `scanned`: another replica may know a later one. `compared`: it was read. */
type Leave = { action: 'leave'; id: string; why: 'scanned' | 'compared'; rev?: string }

/** A decision on a document, given what the target has by its id now. */
export type DecisionBeside<T = unknown> = DecidedWrite<T> | Leave | Failure

/** A decision on a document of the backup. `skip`: deleted in the backup, not in the scope, or internal. */
export type DocumentDecision<T = unknown> =
  | DecisionBeside<T>
  | { action: 'skip'; id: string; why: 'deleted' | 'left_out' | 'internal' }

/** The counts whose documents a restore confirms. */
export type Counted = (DecidedWrite | Leave)['action']

/** A document that the backup does not hold, with all its live revisions, conflicting ones included. */
export interface Deletion<T = unknown> {
  action: 'delete'
  id: string
  revisions: string[]
  compared?: T
}

export type Decision<T = unknown> = DocumentDecision<T> | Deletion<T>

export const create = (document: SourceDocument, base: NewBase): Creation => ({
  action: 'create',
  id: headOf(document).id,
  document,
  base
})

export const fails = (id: string, error: string, reason: string): Failure => ({
  action: 'fail',
  id,
  error,
  reason
})

/** Returns a document's JSON as written on `base`, in pieces: views of the document, but for short ones. */
export function* piecesOn(base: BaseRevision, document: DocumentBytes): Steps<Buffer[]> {
  if (base.kind === 'kept') return [document.bytes]
  return yield* piecesWithRevision(document, base.kind === 'over' ? base.rev : null)
}

/** Returns the result of {@link piecesOn} in one piece. */
export function* bytesOn(base: BaseRevision, document: DocumentBytes): Steps<Buffer> {
  if (base.kind === 'kept') return document.bytes
  const pieces = yield* piecesOn(base, document)
  yield
  return Buffer.concat(pieces)
}
