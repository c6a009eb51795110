import { type DocumentBytes, piecesWithRevision } from '../json/document.js'
import type { Steps } from '../waits/steps.js'
import type { SourceDocument } from './source.js'

/**
 * What a document that is not there is written on. `kept`: with its own revision, which the database never had. `none`:
 * the database makes the revision.
 */
export type NewBase = { kind: 'kept'; rev: string } | { kind: 'none' }

type LiveBase = { kind: 'over'; rev: string }

export type BaseRevision = NewBase | LiveBase

export const NO_BASE = { kind: 'none' } as const

export type DecidedWrite =
  | { action: 'create'; id: string; document: SourceDocument; base: NewBase }
  | { action: 'change'; id: string; document: SourceDocument; base: LiveBase }

/** A document that cannot be restored or deleted, and why. */
export interface Failure {
  action: 'fail'
  id: string
  error: string
  reason: string
}

/**
 * What a restore does with a document of the backup. `leave`: the target has the same content. `skip`: the backup says
 * that it is deleted, a skip list names it, or it is one of a console's internal documents.
 */
export type DocumentDecision =
  | DecidedWrite
  | { action: 'leave'; id: string }
  | { action: 'skip'; id: string; why: 'deleted' | 'listed' | 'internal' }
  | Failure

/** A document that the backup does not hold, and its live revisions: conflicting ones go with the one that wins. */
export interface Deletion {
  action: 'delete'
  id: string
  revisions: string[]
}

export type Decision = DocumentDecision | Deletion

/** Returns a document's JSON as it is written on `base`, in pieces: views of the document, but for short ones. */
export function* piecesOn(base: BaseRevision, document: DocumentBytes): Steps<Buffer[]> {
  if (base.kind === 'kept') return [document.bytes]
  return yield* piecesWithRevision(document, base.kind === 'over' ? base.rev : null)
}

/** Returns the same in one piece. */
export function* bytesOn(base: BaseRevision, document: DocumentBytes): Steps<Buffer> {
  const pieces = yield* piecesOn(base, document)
  yield
  return pieces.length === 1 ? pieces[0] : Buffer.concat(pieces)
}
