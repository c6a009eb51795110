import fc from 'fast-check'
import { ELEMENT, type JsonKind } from '../../lib/json/scanner.js'

const SURROGATES = { first: 0xd800, count: 0x800 }

/** Any character but halves of surrogate pairs, as fast-check's unit `binary`, which takes seconds to begin with. */
export const character = fc
  .integer({ min: 0, max: 0x10ffff - SURROGATES.count })
  .map((code) => String.fromCodePoint(code < SURROGATES.first ? code : code + SURROGATES.count))

/** A JSON value and its text. */
export interface JsonNode {
  kind: JsonKind
  text: string
  /** Members or elements. `key` is the decoded name of a member, or {@link ELEMENT}. */
  children: { key: string | typeof ELEMENT; node: JsonNode }[]
}

const space = fc.string({ unit: fc.constantFrom(' ', '\n', '\r', '\t'), maxLength: 2 })

/** Characters as a serializer writes them in a JSON string. */
const plain = fc
  .oneof(
    { weight: 2, arbitrary: fc.string({ unit: 'grapheme-ascii', maxLength: 4 }) },
    fc.string({ unit: character, maxLength: 3 })
  )
  .map((text) => JSON.stringify(text).slice(1, -1))

const piece = fc.oneof(
  { weight: 5, arbitrary: plain },
  fc.constantFrom('\\"', '\\\\', '\\/', '\\b', '\\f', '\\n', '\\r', '\\t', '{', '}', '[', ']', ',', ':'),
  fc.constantFrom('\\u0000', '\\u0041', '\\u00e9', '\\u2028', '\\ud83d\\ude00', '\\ud83d', '\\udE00'),
  fc.constantFrom('\u007f', 'é', '漢', '😀', '\u2028', '\uffff', '\u{10ffff}')
)

/** Texts of JSON strings, with escapes that no serializer would choose and unpaired surrogates. */
export const stringText = fc.array(piece, { maxLength: 5 }).map((pieces) => `"${pieces.join('')}"`)

const numberText = fc.oneof(
  fc.constantFrom('0', '-0', '1.0', '-0.0', '1e400', '-1E+400', '1e-400', '123456789012345678901234567890'),
  fc.constantFrom('9007199254740993', '0.1000000000000000055511151231257827', '10', '1E5', '2.50e-07'),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value))
)

const leaf = fc.oneof(
  stringText.map((text): JsonNode => ({ kind: 'string', text, children: [] })),
  numberText.map((text): JsonNode => ({ kind: 'number', text, children: [] })),
  fc.constantFrom('true', 'false', 'null').map((text): JsonNode => ({ kind: 'literal', text, children: [] }))
)

/** JSON values of any kind, with white space and repeated member names. */
export const jsonNode: fc.Arbitrary<JsonNode> = fc.letrec<{ node: JsonNode }>((tie) => {
  const member = fc.record({
    key: fc.oneof(stringText, fc.constantFrom('"a"', '"\\u0061"')),
    node: tie('node'),
    spaces: fc.tuple(space, space, space, space)
  })
  const element = fc.record({ node: tie('node'), spaces: fc.tuple(space, space) })
  return {
    node: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaf,
      fc.tuple(fc.array(member, { maxLength: 4 }), space).map(([members, empty]): JsonNode => {
        const texts = members.map(
          ({ key, node, spaces: [a, b, c, d] }) => `${a + key + b}:${c}${node.text}${d}`
        )
        return {
          kind: 'object',
          text: `{${texts.join(',') || empty}}`,
          children: members.map(({ key, node }) => ({ key: JSON.parse(key) as string, node }))
        }
      }),
      fc.tuple(fc.array(element, { maxLength: 4 }), space).map(([elements, empty]): JsonNode => {
        const texts = elements.map(({ node, spaces: [a, b] }) => a + node.text + b)
        return {
          kind: 'array',
          text: `[${texts.join(',') || empty}]`,
          children: elements.map(({ node }) => ({ key: ELEMENT, node }))
        }
      })
    )
  }
}).node

/** JSON texts of any kind, with white space around them. */
export const jsonText = fc.oneof(
  fc.tuple(space, jsonNode, space).map(([before, { text }, after]) => before + text + after),
  fc.json({ stringUnit: 'binary' })
)

/** Places to cut bytes at, for {@link cut}. */
export const cuts = fc.oneof(
  fc.constant(null),
  fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 })
)

/** Cuts bytes at the places given as shares of their length; `null` cuts everywhere. Some pieces may be empty. */
export function cut(bytes: Buffer, shares: readonly number[] | null): Buffer[] {
  if (shares === null) return Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))
  const places = [0, ...shares.map((share) => Math.floor(share * bytes.length)), bytes.length]
  places.sort((a, b) => a - b)
  return places.slice(1).map((place, i) => bytes.subarray(places[i], place))
}
