import type { DocumentDiff } from '../../types/diff.js'
import type { Context, Outcome } from './command.js'
import { errorMember, toldError } from './errors.js'
import { count, number } from './format.js'
import { printable, quoted, writeOut } from './text.js'

/** A document that differs, with as much as is told of it. */
export type Change = Pick<DocumentDiff, 'database' | 'id' | 'change'> & Partial<DocumentDiff>

/**
 * Writes documents that differ to stdout as they come, since there may be as many as the databases have: a line for
 * each, or with `json` as the member `changes` of an object.
 */
export class ChangeList {
  readonly #context: Context
  readonly #json: boolean
  /** Members of the object before the changes. */
  readonly #head: object
  #written = 0
  readonly #counts = new Map<string, number>()

  constructor(context: Context, json: boolean, head: object) {
    this.#context = context
    this.#json = json
    this.#head = head
  }

  async add(change: Change): Promise<void> {
    this.#context.progress.clear()
    this.#counts.set(change.change, (this.#counts.get(change.change) ?? 0) + 1)
    const before = this.#written++ > 0 ? ',' : this.#opening()
    await this.#write(this.#json ? `${before}${JSON.stringify(change)}` : `${changeText(change)}\n`)
  }

  /** Writes what follows the changes. */
  async end(members: object): Promise<void> {
    if (!this.#json) return
    const opening = this.#written === 0 ? this.#opening() : ''
    await this.#write(`${opening}],${JSON.stringify(members).slice(1)}\n`)
  }

  /** Returns the outcome of a failure: an object that was begun ends with a member `error`. @throws `error` before */
  async fail(error: unknown): Promise<Outcome> {
    if (!this.#json || this.#written === 0) throw error
    const told = toldError(error, this.#context.client.signal.aborted)
    await this.end({ error: errorMember(told) })
    return { result: null, text: null, warning: told.message, exitCode: told.exitCode }
  }

  get count(): number {
    return this.#written
  }

  /** Tells how many there were: `2 documents: 1 created, 1 changed`. */
  get text(): string {
    const parts = [...this.#counts].map(([change, counted]) => `${number(counted)} ${change}`)
    return `${count(this.#written, 'document')}${parts.length > 0 ? `: ${parts.join(', ')}` : ''}`
  }

  #opening(): string {
    const head = JSON.stringify(this.#head).slice(0, -1)
    return `${head}${head === '{' ? '' : ','}"changes":[`
  }

  #write(text: string): Promise<void> {
    return writeOut(this.#context.stdout, text)
  }
}

function changeText({ change, database, id, fields, reason, values, ...more }: Change): string {
  const cut = more.id_truncated ? '...' : ''
  const names = [...(fields ?? []).map(nameOf), ...(more.fields_truncated ? ['...'] : [])].join(', ')
  const told = [names, reason].filter(Boolean).join('; ')
  const line = `${change.padEnd(8)} ${database.padEnd(10)} ${quoted(id)}${cut}${told ? `  ${told}` : ''}`
  const lines = (values ?? []).map(
    ({ field, before = '-', after = '-' }) =>
      `    ${nameOf(field)}: ${printable(before)} -> ${printable(after)}`
  )
  return [line, ...lines].join('\n')
}

const nameOf = (name: string) => (/^[\w.-]+$/.test(name) ? name : quoted(name))
