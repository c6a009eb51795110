import type { LogicalDatabase } from '../../types/databases.js'
import type { ByDatabase, DocumentChoice } from '../../types/restores.js'
import type { DocumentBytes } from '../json/document.js'
import { type Condition, documentMeets } from '../selector/condition.js'
import { parseSelector } from '../selector/parse-selector.js'
import type { Steps } from '../waits/steps.js'
import { headOf, isLarge, type SourceDocument } from './source.js'

/** The documents that a restore was told to restore, and to leave alone. */
export interface RestoreChoice {
  skip: ByDatabase<readonly string[]>
  only: ByDatabase<DocumentChoice> | undefined
  exclude: ByDatabase<DocumentChoice>
}

/** Checks the selectors of a choice. @throws InvalidParameterError that names what is not known */
export function checkSelectors(option: 'only' | 'exclude', choices: ByDatabase<DocumentChoice> = {}): void {
  for (const [database, choice] of Object.entries(choices)) conditionOf(option, database, choice)
}

/** Parses the selector of a choice, if it has one. */
const conditionOf = (option: 'only' | 'exclude', database: string, { selector }: DocumentChoice) =>
  selector === undefined ? undefined : parseSelector(selector, `options/${option}/${database}/selector`)

/** Returns whether a restore may write to a database at all. */
export const isChosen = (database: LogicalDatabase, { only }: RestoreChoice): boolean =>
  only === undefined || only[database] !== undefined

/** The documents of one database that a restore may write or delete. */
export class Scope {
  readonly #only: Filter | undefined
  /** Documents that meet one of these are left alone. */
  readonly #left: readonly Filter[]

  constructor(database: LogicalDatabase, { skip, only, exclude }: RestoreChoice) {
    const one = only?.[database]
    const others = exclude[database]
    this.#only = one && new Filter(one, conditionOf('only', database, one))
    this.#left = [
      ...(skip[database]?.length ? [new Filter({ ids: skip[database] })] : []),
      ...(others ? [new Filter(others, conditionOf('exclude', database, others))] : [])
    ]
  }

  static ofAll(database: LogicalDatabase): Scope {
    return new Scope(database, { skip: {}, only: undefined, exclude: {} })
  }

  /** Whether all documents are in it. */
  get isAll(): boolean {
    return this.#only === undefined && this.#left.length === 0
  }

  /** Returns whether `only` lets a document of this id in, whatever it says. */
  mayHold(id: string): boolean {
    return this.#only?.mayMeet(id) ?? true
  }

  /** Notes that there is a document of this id. @returns whether it may be in the scope, whatever it says */
  note(id: string): boolean {
    this.#only?.note(id)
    for (const filter of this.#left) filter.note(id)
    return this.mayHold(id) && !this.#left.some((filter) => filter.isOfIds && filter.mayMeet(id))
  }

  /** Returns whether a document of the backup is in the scope. One that cannot be read is, unless its id says no. */
  *includes(document: SourceDocument): Steps<boolean> {
    const head = headOf(document)
    if (!this.note(head.id)) return false
    return (isLarge(document) && document.problem !== undefined) || (yield* this.holds(head))
  }

  /** Returns whether a document that can be read is in the scope. */
  *holds(document: DocumentBytes): Steps<boolean> {
    if (this.#only && !(yield* this.#only.meets(document))) return false
    for (const filter of this.#left) if (yield* filter.meets(document)) return false
    return true
  }

  /** Returns the ids of `skip` and `exclude` that no document has. */
  unknownLeft(): string[] {
    return [...new Set(this.#left.flatMap((filter) => filter.unknown()))]
  }

  /** Returns the ids of `only` that no document has. */
  unknownChosen(): string[] {
    return this.#only?.unknown() ?? []
  }
}

/** Documents that meet every member of a choice that is given. */
class Filter {
  readonly #ids: ReadonlySet<string> | undefined
  readonly #types: ReadonlySet<string> | undefined
  readonly #condition: Condition | undefined
  readonly #found = new Set<string>()

  constructor({ ids, types }: Pick<DocumentChoice, 'ids' | 'types'>, condition?: Condition) {
    this.#ids = ids && new Set(ids)
    this.#types = types && new Set(types)
    this.#condition = condition
  }

  /** Whether the id alone decides. */
  get isOfIds(): boolean {
    return this.#types === undefined && this.#condition === undefined
  }

  mayMeet(id: string): boolean {
    return this.#ids?.has(id) ?? true
  }

  note(id: string): void {
    if (this.#ids?.has(id)) this.#found.add(id)
  }

  *meets({ id, type, bytes }: DocumentBytes): Steps<boolean> {
    if (!this.mayMeet(id)) return false
    if (this.#types && (type === undefined || !this.#types.has(type))) return false
    return this.#condition === undefined || (yield* documentMeets(bytes, this.#condition))
  }

  unknown(): string[] {
    return [...(this.#ids ?? [])].filter((id) => !this.#found.has(id))
  }
}
