import type { Fingerprint } from './fingerprint.js'

/** Share of used slots at which a segment doubles. */
const LOAD = 0.75
/** Segments, each of which grows by itself, in a millisecond or two. */
const SEGMENTS = 64
const FEWEST_SLOTS = 32

/** Maps fingerprints to words. A free slot's last word is 0. Places are valid until {@link place} runs. */
export class FingerprintTable {
  readonly #width: number
  readonly #segments: Segment[]
  size = 0

  /** @param width words of an entry @param expected about how many entries there will be */
  constructor(width: number, expected = 0) {
    this.#width = width
    const empty = new Uint32Array(width)
    this.#segments = Array.from({ length: SEGMENTS }, () => new Segment(empty, expected / SEGMENTS))
  }

  /** Returns the place of an entry, or of the free slot for it. */
  find(print: Fingerprint): number {
    const segment = segmentOf(print)
    return this.#segments[segment].find(print) * SEGMENTS + segment
  }

  isUsed(place: number): boolean {
    return this.word(place, this.#width - 1) !== 0
  }

  /** Returns a word of an entry; the first two are the fingerprint. */
  word(place: number, index: number): number {
    return this.#segments[place % SEGMENTS].words[Math.floor(place / SEGMENTS) + index]
  }

  setWord(place: number, index: number, value: number): void {
    this.#segments[place % SEGMENTS].words[Math.floor(place / SEGMENTS) + index] = value
  }

  /** Returns the place of an entry, new or not; the caller sets its words. */
  place(print: Fingerprint): number {
    const number = segmentOf(print)
    const segment = this.#segments[number]
    const before = segment.size
    const at = segment.add(print)
    this.size += segment.size - before
    return at * SEGMENTS + number
  }
}

const segmentOf = ({ h }: Fingerprint): number => (h >>> 0) % SEGMENTS

class Segment {
  words: Uint32Array
  size = 0
  readonly #width: number
  /** Slots from the first entry on. */
  readonly #first: number
  #slots = 1

  /** @param empty one free slot, which all segments share until they have an entry: many never get one */
  constructor(empty: Uint32Array, expected: number) {
    this.#width = empty.length
    this.#first = Math.max(FEWEST_SLOTS, Math.ceil(expected / LOAD))
    this.words = empty
  }

  /** Returns the offset of an entry, or of the free slot for it. */
  find({ h, l }: Fingerprint): number {
    const low = l >>> 0
    let slot = Math.floor((low / 2 ** 32) * this.#slots)
    for (;;) {
      const at = slot * this.#width
      if (!this.#isUsed(at) || (this.words[at] === h >>> 0 && this.words[at + 1] === low)) return at
      slot = slot + 1 === this.#slots ? 0 : slot + 1
    }
  }

  /** Returns the offset of an entry, new or not. */
  add(print: Fingerprint): number {
    if (this.size + 1 > this.#slots * LOAD) this.#grow()
    const at = this.find(print)
    if (this.#isUsed(at)) return at
    this.size++
    this.words[at] = print.h
    this.words[at + 1] = print.l
    return at
  }

  #isUsed(at: number): boolean {
    return this.words[at + this.#width - 1] !== 0
  }

  #grow(): void {
    const old = this.words
    const width = this.#width
    this.#slots = this.size === 0 ? this.#first : this.#slots * 2
    this.words = new Uint32Array(this.#slots * width)
    for (let at = 0; at < old.length; at += width) {
      if (old[at + width - 1] === 0) continue
      const to = this.find({ h: old[at], l: old[at + 1] })
      for (let word = 0; word < width; word++) this.words[to + word] = old[at + word]
    }
  }
}
