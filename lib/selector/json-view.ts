import { decodeString, decodeValue, KnownNames, MemberCursor, skipSpace, skipValue } from '../json/members.js'
import type { Steps } from '../waits/steps.js'

/** Kinds of JSON values in the order in which CouchDB sorts them. */
const KINDS = ['null', 'false', 'true', 'number', 'string', 'array', 'object'] as const

type Kind = (typeof KINDS)[number]

const KIND_OF: Readonly<Record<number, Kind>> = {
  110: 'null',
  102: 'false',
  116: 'true',
  34: 'string',
  91: 'array',
  123: 'object'
}

/** Returns the place of a kind in the order of all values. */
export const rankOf = (kind: Kind): number => KINDS.indexOf(kind)

/** One name of a path to a member. A number is also the index of an element of an array. */
export class PathName {
  readonly #name: string
  /** Finds the name without decoding others. Absent where the name has characters that JSON may escape. */
  readonly #known: KnownNames | undefined
  readonly index: number | undefined

  constructor(name: string) {
    this.#name = name
    this.#known = /^[ !#-[\]-~]+$/.test(name) ? new KnownNames([name]) : undefined
    this.index = /^[0-9]{1,9}$/.test(name) ? Number(name) : undefined
  }

  isOf(cursor: MemberCursor): boolean {
    return this.#known ? cursor.keyOf(this.#known) !== undefined : cursor.key() === this.#name
  }
}

/** Reads a JSON value in well-formed bytes. Parses only what is asked for. */
export class JsonView {
  readonly #bytes: Uint8Array
  readonly #at: number

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes
    this.#at = skipSpace(bytes, at)
  }

  get kind(): Kind {
    return KIND_OF[this.#bytes[this.#at]] ?? 'number'
  }

  string(): string {
    return decodeString(this.#bytes, this.#at, this.#end)
  }

  number(): number {
    return decodeValue(this.#bytes, this.#at, this.#end) as number
  }

  /** Finds a member of an object, or an element of an array. */
  *find(name: PathName): Steps<JsonView | undefined> {
    if (this.kind === 'object') return yield* this.#member(name)
    if (this.kind !== 'array' || name.index === undefined) return undefined
    let i = 0
    for (const element of this.elements()) {
      if (i++ === name.index) return element
      yield
    }
    return undefined
  }

  *#member(name: PathName): Steps<JsonView | undefined> {
    const cursor = new MemberCursor(this.#bytes, this.#at)
    while (cursor.next()) {
      if (name.isOf(cursor)) return new JsonView(this.#bytes, cursor.valueStart)
      while (!cursor.reachEnd()) yield
    }
    return undefined
  }

  /** Yields the elements of an array. */
  *elements(): Generator<JsonView> {
    const bytes = this.#bytes
    let i = skipSpace(bytes, this.#at + 1)
    while (bytes[i] !== 0x5d) {
      yield new JsonView(bytes, i)
      i = skipSpace(bytes, skipValue(bytes, i))
      if (bytes[i] === 0x2c) i = skipSpace(bytes, i + 1)
    }
  }

  get #end(): number {
    return skipValue(this.#bytes, this.#at)
  }
}
