import type { WriteStream } from 'node:tty'
import { bytes, count, duration, number } from './format.js'

const BAR = 24
/** Milliseconds between two drawings on a terminal, and between two lines elsewhere. */
const REDRAW = 100
const RELINE = 5000

/** Reports progress on stderr: one redrawn line on a terminal, lines elsewhere. */
export class Progress {
  readonly #stream: WriteStream
  readonly #enabled: boolean
  #last = 0
  #drawn = false
  #began: { at: number; done: number } | undefined

  constructor(stream: WriteStream, wanted: boolean) {
    this.#stream = stream
    this.#enabled = wanted || stream.isTTY === true
  }

  /** Whether progress is told. */
  get isShown(): boolean {
    return this.#enabled
  }

  /** Shows a transfer's progress, in bytes. */
  transfer(what: string, done: number, total: number | undefined): void {
    this.#began ??= { at: performance.now(), done }
    if (!this.#isDue(done === total)) return
    const seconds = (performance.now() - this.#began.at) / 1000
    const rate = seconds > 0.2 ? (done - this.#began.done) / seconds : 0
    const speed = rate > 0 ? `, ${bytes(rate)}/s` : ''
    if (total === undefined) {
      this.#draw(`${what} ${bytes(done)}${speed}`)
      return
    }
    const left = rate > 0 && done < total ? `, ${duration(((total - done) / rate) * 1000)} left` : ''
    this.#draw(`${what} ${bar(done, total)} ${bytes(done)} of ${bytes(total)}${speed}${left}`)
  }

  /** Shows how many documents were worked through. `about`: the total is a guess, which may be exceeded. */
  documents(done: number, total: number, { about = false, of = '' } = {}): void {
    if (!this.#isDue(!about && done === total)) return
    const head = `${of && `${of} `}${bar(about ? Math.min(done, total * 0.99) : done, total)}`
    const known = about ? `about ${count(total, 'document')}` : count(total, 'document')
    this.#draw(done > total ? `${head} ${count(done, 'document')}` : `${head} ${number(done)} of ${known}`)
  }

  /** Shows what goes on, without a known end. */
  state(text: string): void {
    if (this.#isDue(false)) this.#draw(text)
  }

  /** Tells of a step, where progress is told. */
  note(text: string): void {
    if (this.#enabled) this.warn(text)
  }

  /** Tells of what an operator has to know, with a terminal or without. */
  warn(text: string): void {
    this.clear()
    this.#stream.write(`${text}\n`)
  }

  clear(): void {
    if (this.#drawn) this.#stream.write('\r\u001b[K')
    this.#drawn = false
    this.#began = undefined
    this.#last = 0
  }

  #isDue(last: boolean): boolean {
    if (!this.#enabled) return false
    const now = performance.now()
    if (!last && this.#last > 0 && now - this.#last < (this.#stream.isTTY ? REDRAW : RELINE)) return false
    this.#last = now
    return true
  }

  #draw(text: string): void {
    if (!this.#stream.isTTY) {
      this.#stream.write(`${text}\n`)
      return
    }
    const width = Math.max(20, (this.#stream.columns || 80) - 1)
    this.#stream.write(`\r${text.slice(0, width)}\u001b[K`)
    this.#drawn = true
  }
}

function bar(done: number, total: number): string {
  const share = total > 0 ? Math.min(1, done / total) : 1
  const full = Math.floor(share * BAR)
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}] ${String(Math.floor(share * 100)).padStart(3)} %`
}
