import { cutText, MOST } from '../bytes/cut-text.js'
import type { DamagedBackupError } from '../errors.js'

/** Something that is wrong with one part of a backup. */
export interface Finding {
  /** `index`: a chunk by which the next backup finds versions; the documents are whole without it. */
  part: 'header' | 'manifest' | 'chunk' | 'index'
  /** Id of its document. */
  id: string
  reason: string
  /** Ids of the first documents that are concerned, where they are known. */
  documents?: string[]
}

export type OnFinding = (finding: Finding) => void

/** Documents that a finding names. */
export const NAMED_DOCUMENTS = 10

/** Collects what is wrong with the lines of one chunk. */
export class LineFindings {
  readonly #documents: string[] = []
  #lines = 0
  #first = ''

  /** @param id the document's, where it is known */
  add(line: number, reason: string, id?: string): void {
    this.#first ||= `line ${line} ${reason}`
    this.#lines++
    if (id !== undefined && this.#documents.length < NAMED_DOCUMENTS)
      this.#documents.push(cutText(id, MOST.name))
  }

  /** Returns one finding of all; `undefined` where nothing is wrong. */
  of(chunk: string): Finding | undefined {
    if (this.#lines === 0) return undefined
    const more = this.#lines - 1
    const others = more === 0 ? '' : `, and ${more} more ${more === 1 ? 'line is' : 'lines are'} wrong`
    const documents = this.#documents.length > 0 && { documents: this.#documents }
    return { part: 'chunk', id: chunk, reason: `is damaged: ${this.#first}${others}`, ...documents }
  }
}

/** Returns what a damaged part says without naming it again. */
export const findingOf = ({ part, id, message }: DamagedBackupError, isIndex = false): Finding => ({
  part: isIndex && part === 'chunk' ? 'index' : part,
  id,
  reason: message.slice(`backup ${part} "${id}" `.length)
})
