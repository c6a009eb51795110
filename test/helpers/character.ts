import fc from 'fast-check'

const SURROGATES = { first: 0xd800, count: 0x800 }

/** Any character but halves of surrogate pairs, as fast-check's unit `binary`, which takes seconds to begin with. */
export const character = fc
  .integer({ min: 0, max: 0x10ffff - SURROGATES.count })
  .map((code) => String.fromCodePoint(code < SURROGATES.first ? code : code + SURROGATES.count))
