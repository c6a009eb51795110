import createError from '@fastify/error'
import { TypeBoxValidatorCompiler } from '@fastify/type-provider-typebox'
import { errorCodes } from 'fastify'
import { attachmentTooLarge } from '../bytes/attachment-bounds.js'
import { utf8Text } from '../bytes/utf8-text.js'
import {
  type JsonAction,
  type JsonKind,
  type JsonPath,
  JsonScanner,
  JsonSyntaxError,
  type JsonVisitor
} from '../json/scanner.js'
import { JsonStringDecoder } from '../json/string-decoder.js'
import { AttachmentBody } from '../schemas/backup.js'
import { inSharedTurns } from '../waits/steps.js'

/** Most members of a body, repeated ones included. The last of several members with one name counts. */
const MEMBERS = 20
/** Levels of nesting; a valid body has one. */
const MAX_DEPTH = 1000

const ATTACHMENT = '/attachment'

/** Fastify does not export the error of its own validation. */
const ValidationError = createError('FST_ERR_VALIDATION', '%s', 400)

const validate = TypeBoxValidatorCompiler({
  schema: AttachmentBody,
  method: '',
  url: '',
  httpPart: 'body'
})

/** A place where bytes are kept until they are stored. */
interface Kept {
  readonly length: number
  write(piece: Uint8Array): Promise<void>
  clear(): Promise<void>
}

/**
 * Keeps the string of an append's body, `{"attachment": "<string>"}`, of at most `limit` bytes.
 * @throws Fastify's 400 (no JSON, schema), TooLargeError, InsufficientStorageError, what the body throws
 */
export async function readAttachmentBody(
  body: AsyncIterable<Uint8Array>,
  into: Kept,
  limit: number
): Promise<void> {
  const visitor = new AttachmentVisitor()
  const scanner = new JsonScanner(visitor, { maxDepth: MAX_DEPTH })
  try {
    const { text } = await utf8Text(body)
    for await (const piece of inSharedTurns(text)) {
      scanner.write(piece)
      for (const found of visitor.take()) {
        if (found === null) await into.clear()
        else await into.write(found)
        if (into.length > limit) throw attachmentTooLarge(limit)
      }
    }
    if (scanner.offset > 0) scanner.end()
  } catch (error) {
    throw error instanceof JsonSyntaxError ? new errorCodes.FST_ERR_CTP_INVALID_JSON_BODY() : error
  }
  checkBody(visitor.body)
}

interface Problem {
  instancePath: string
  message: string
}

const problemsOf = (body: unknown): Problem[] => (validate(body) as { error?: Problem[] }).error ?? []

const refusal = (problems: readonly Problem[]): Error =>
  new ValidationError(
    problems.map(({ instancePath, message }) => `body${instancePath} ${message}`).join(', ')
  )

/** @throws FST_ERR_VALIDATION */
function checkBody(body: unknown): void {
  const problems = problemsOf(body)
  if (problems.length > 0) throw refusal(problems)
}

/** Refuses too many members by unknown names, but not `attachment`, which might have followed. */
function tooManyMembers(body: unknown): Error {
  const unknown = problemsOf(body).filter(({ instancePath }) => instancePath !== ATTACHMENT)
  if (unknown.length > 0) return refusal(unknown)
  return refusal([{ instancePath: ATTACHMENT, message: `Expected once, found more than ${MEMBERS} times` }])
}

/** Stands for any value of a kind: the schema asks for no more. */
const STAND_IN: Record<JsonKind, unknown> = { object: {}, array: [], string: '', number: 0, literal: null }

/** Finds the bytes of `attachment`, and outlines the body for validation. */
class AttachmentVisitor implements JsonVisitor {
  /** The body without its strings; `undefined` when there is none. */
  body: unknown
  #members = 0
  #decoder = new JsonStringDecoder()
  #found: (Uint8Array | null)[] = []

  /** Returns the bytes found since the last call. `null` drops those before it: the last member counts. */
  take(): (Uint8Array | null)[] {
    const found = this.#found
    this.#found = []
    return found
  }

  begin([name]: JsonPath, kind: JsonKind): JsonAction {
    if (name === undefined) {
      this.body = kind === 'object' ? {} : STAND_IN[kind]
      return kind === 'object' ? 'enter' : 'skip'
    }
    this.#note(String(name), kind)
    if (name !== 'attachment') return 'skip'
    this.#found.push(null)
    this.#decoder = new JsonStringDecoder()
    return kind === 'string' ? 'stream' : 'skip'
  }

  bytes(piece: Uint8Array): void {
    const bytes = this.#decoder.write(piece)
    if (bytes.length > 0) this.#found.push(bytes)
  }

  end(): void {}

  #note(name: string, kind: JsonKind): void {
    // Fastify's parser takes this name for an attack.
    if (name === '__proto__') throw new errorCodes.FST_ERR_CTP_INVALID_JSON_BODY()
    const body = this.body as Record<string, unknown>
    body[name] = STAND_IN[kind]
    if (++this.#members > MEMBERS) throw tooManyMembers(body)
  }
}
