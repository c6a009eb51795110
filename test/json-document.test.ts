import fc from 'fast-check'
import t from 'tap'
import {
  bodyOf,
  documentId,
  documentSteps,
  InvalidDocumentError,
  piecesWithRevision,
  readDocument,
  withoutRevisionMembers
} from '../lib/json/document.js'
import { decodeString, decodeValue, eachElement, MemberCursor } from '../lib/json/members.js'
import { atOnce, type Steps } from '../lib/waits/steps.js'
import { jsonNode, stringText } from './helpers/arbitraries.js'
import { cases, extent } from './helpers/settings.js'

const REV = `2-${'ab'.repeat(16)}`
const REVISION_MEMBERS = ['_conflicts', '_deleted_conflicts', '_local_seq', '_revisions', '_revs_info']

/** The text of a member, and its decoded name. */
interface Member {
  name: string
  text: string
}

const spell = (name: string) =>
  fc.constantFrom(
    JSON.stringify(name),
    `"\\u${name.charCodeAt(0).toString(16).padStart(4, '0')}${name.slice(1)}"`
  )

const member = (name: string, value: fc.Arbitrary<string>): fc.Arbitrary<Member> =>
  fc.tuple(spell(name), value).map(([key, text]) => ({ name, text: `${key}:${text}` }))

const ordinary = fc
  .tuple(stringText, jsonNode)
  .map(([key, { text }]) => ({ name: JSON.parse(key) as string, text: `${key} : ${text}` }))
  .filter(({ name }) => !name.startsWith('_') && name !== 'type')

const maybe = (arbitrary: fc.Arbitrary<Member>) =>
  fc.option(arbitrary, { freq: 1 }).map((found) => (found ? [found] : []))

/** Documents with their members in any order. */
const documentMembers = fc
  .tuple(
    member('_id', fc.constantFrom('"a"', '"a\\/b"', '"_design/x"', '"\\u005fdesign/\\ud83d"')),
    maybe(member('_rev', fc.constant(`"${REV}"`))),
    maybe(member('type', fc.constantFrom('"fabric-peer"', '"\\u0061"', '5', '{"type":"x"}'))),
    maybe(member('_deleted', fc.constantFrom('true', 'false'))),
    maybe(member('_attachments', fc.constantFrom('{}', '{"a":{"stub":true}}'))),
    maybe(member('_conflicts', fc.constantFrom('[]', '["1-a"]', '["1-a","1-b"]'))),
    maybe(member('_revisions', fc.constant('{"start":1,"ids":["a"]}'))),
    fc.array(ordinary, { maxLength: 5 })
  )
  .chain(([id, ...rest]) => {
    const all = [id, ...rest.flat()]
    return fc.shuffledSubarray(all, { minLength: all.length })
  })

const textOf = (members: readonly Member[]) => `{${members.map(({ text }) => text).join(',')}}`

t.test('reads what CouchDB gives a meaning to', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(documentMembers, fc.constantFrom('', ' ', '\n\t'), (members, space) => {
        const text = `${space}${textOf(members)}${space}`
        const model = JSON.parse(text)
        const document = readDocument(Buffer.from(text))
        const { bytes, attachments } = document
        const found = attachments && JSON.parse(bytes.toString('utf8', attachments.start, attachments.end))
        return (
          document.id === model._id &&
          documentId(bytes) === model._id &&
          document.rev === model._rev &&
          document.type === (typeof model.type === 'string' ? model.type : undefined) &&
          document.deleted === (model._deleted === true) &&
          document.conflicts === (model._conflicts?.length ?? 0) &&
          JSON.stringify(found ?? {}) === JSON.stringify(model._attachments ?? {}) &&
          (found === undefined) === (Object.keys(model._attachments ?? {}).length === 0)
        )
      }),
      { numRuns: cases(extent(200, 500)) }
    )
  )
})

t.test('leaves every byte but the members that it exchanges', async (t) => {
  const without = (members: readonly Member[], ...names: string[]) =>
    members.filter(({ name }) => !names.includes(name))
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(documentMembers, (members) => {
        const document = readDocument(Buffer.from(textOf(members)))
        const plain = without(members, '_rev', ...REVISION_MEMBERS)
        const at = plain.findIndex(({ name }) => name === '_id') + 1
        const revised = [...plain.slice(0, at), { name: '_rev', text: '"_rev":"9-z"' }, ...plain.slice(at)]
        const kept = atOnce(withoutRevisionMembers(document)).toString()
        return (
          Buffer.concat(atOnce(piecesWithRevision(document, null))).toString() === textOf(plain) &&
          Buffer.concat(atOnce(piecesWithRevision(document, '9-z'))).toString() === textOf(revised) &&
          Buffer.concat(atOnce(bodyOf(document))).toString() ===
            textOf(without(plain, '_id', '_attachments')) &&
          (document.conflicts > 0
            ? readDocument(Buffer.from(kept)).rev === document.rev
            : kept === textOf(members)) &&
          !(document.conflicts > 0 && kept.includes('conflicts"'))
        )
      }),
      { numRuns: cases(extent(200, 500)) }
    )
  )
})

t.test('refuses two members of one name that mean something to CouchDB', async (t) => {
  for (const name of ['_id', '_rev', '_deleted', '_attachments']) {
    const value = name === '_rev' ? `"${REV}"` : name === '_id' ? '"a"' : '{}'
    const id = name === '_id' ? '' : '"_id":"a",'
    const text = `{${id}"x":1,"${name}":${value},"\\u005f${name.slice(1)}":${value}}`
    t.throws(
      () => readDocument(Buffer.from(text)),
      new InvalidDocumentError(`a document has two "${name}" members`)
    )
  }
  t.equal(readDocument(Buffer.from('{"_id":"a","type":"b","x":1,"x":2,"type":"c"}')).type, 'c')
})

t.test('refuses ids and revisions that CouchDB could not store', async (t) => {
  const wrong: [string, RegExp][] = [
    ['{}', /has no "_id"/],
    ['{"id":"a","nested":{"_id":"a"}}', /has no "_id"/],
    ['{"_id":5}', /"_id" is not a string/],
    ['{"_id":null}', /"_id" is not a string/],
    ['{"_id":{"_id":"a"}}', /"_id" is not a string/],
    ['{"_id":""}', /"_id" is empty/],
    ['{"_id":"_local/a"}', /must not begin with an underscore: "_local\/a"/],
    ['{"_id":"\\u005fusers"}', /must not begin with an underscore/],
    ['{"_id":"_design"}', /must not begin with an underscore/],
    ['{"_id":"_design/"}', /must not begin with an underscore/],
    ['{"_id":"a","_rev":5}', /document "a": "_rev" is not a revision/],
    ['{"_id":"a","_rev":""}', /"_rev" is not a revision/],
    ['{"_id":"a","_rev":"-a"}', /"_rev" is not a revision/],
    ['{"_id":"a","_rev":"1"}', /"_rev" is not a revision/],
    ['{"_id":"a","_rev":"x-1"}', /"_rev" is not a revision/]
  ]
  for (const [text, message] of wrong) {
    t.throws(() => readDocument(Buffer.from(text)), { name: 'InvalidDocumentError', message }, text)
  }
  for (const id of [
    'a',
    ' ',
    'a/b',
    '_design/a',
    '_design/_a',
    '_design//',
    '0',
    'ü漢😀',
    '"',
    '\\',
    'constructor'
  ]) {
    t.equal(readDocument(Buffer.from(JSON.stringify({ _id: id }))).id, id)
  }
  // CouchDB accepts them with `new_edits: false`
  for (const _rev of ['0-a', '1-', '1-a b', '1-a"b', '1-漢', '1-\n', `1-${'r'.repeat(9000)}`])
    t.equal(readDocument(Buffer.from(JSON.stringify({ _id: 'a', _rev }))).rev, _rev)
})

t.test('walks members and elements as JSON.parse sees them', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(jsonNode, fc.constantFrom('', ' \n'), ({ kind, text, children }, space) => {
        const bytes = Buffer.from(space + text)
        const found: [unknown, string, unknown][] = []
        if (kind === 'object') {
          const cursor = new MemberCursor(bytes)
          while (cursor.next()) {
            const { valueStart, valueEnd } = cursor
            found.push([cursor.key(), bytes.toString('utf8', valueStart, valueEnd), cursor.string()])
          }
        } else if (kind === 'array') {
          eachElement(bytes, 0, (start, end) => {
            const value = bytes[start] === 0x22 ? decodeString(bytes, start, end) : undefined
            found.push([0, bytes.toString('utf8', start, end), value])
          })
        } else {
          return JSON.stringify(decodeValue(bytes, 0, bytes.length)) === JSON.stringify(JSON.parse(text))
        }
        const expected = children.map(({ key, node }) => [
          key,
          node.text,
          node.kind === 'string' ? JSON.parse(node.text) : undefined
        ])
        return JSON.stringify(found) === JSON.stringify(expected)
      }),
      { numRuns: cases(extent(200, 500)) }
    )
  )
})

t.test('bytes after a document are left out', async (t) => {
  const text = '{"_id":"a","_rev":"1-a","n":{"x":["}"]} }'
  for (const rest of ['', '}', ',"seq":1}', ' \n}']) {
    t.equal(readDocument(Buffer.from(text + rest)).bytes.toString(), text)
  }
  t.equal(readDocument(Buffer.from('{"_id":"b"}}')).bytes.toString(), '{"_id":"b"}')
})

t.test('finds the ends of strings of any length, whatever stands before their quotes', async (t) => {
  for (let length = 100; length < 300; length++) {
    for (const tail of ['', '\\', '\\\\', '"', '\\"', '"\\\\"', '\\'.repeat(200)]) {
      const text = 'x'.repeat(length) + tail + 'y'.repeat(length % 3)
      const json = JSON.stringify({ text, _id: 'a', [text]: 1, type: 'b' })
      const { id, type, bytes } = readDocument(Buffer.from(`${json},`))
      if (id !== 'a' || type !== 'b' || bytes.toString() !== json) t.fail(json)
    }
  }
})

t.test('knows members by any spelling of their names', async (t) => {
  const escaped = (name: string) =>
    [...name].map((c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join('')
  const json = `{"${escaped('_id')}":"a","t\\u0079pe":"b","${escaped('_conflicts')}":["1-a"],"ty\\\\pe":"c"}`
  t.match(readDocument(Buffer.from(json)), { id: 'a', type: 'b', conflicts: 1 })
})

t.test('long documents are walked over in steps, many members and deep values alike', async (t) => {
  const members = Object.fromEntries(Array.from({ length: 40_000 }, (_, n) => [`type ${n}`, n]))
  const deep = Array.from({ length: 40_000 }, (_, n) => [n, { a: ['}]', n] }])
  const long = ['"}', '\\"'].map((text) => text.repeat(50_000))
  const [_id, _rev, type] = ['a', '1-a', 'b']
  for (const value of [members, { deep }, { deep, ...members }, { long }, { ...long, ...members, deep }]) {
    const document = { _id, ...value, _conflicts: ['1-b'], type, _rev }
    const bytes = Buffer.from(JSON.stringify(document))
    // a string of any length is one step
    const enough = Math.floor((bytes.length - long.join('').length) / 64 / 1024)
    const walked = <T>(steps: Steps<T>): T => {
      for (let count = 0; ; count++) {
        const { done, value: result } = steps.next()
        if (!done) continue
        t.ok(count >= enough, `${count} steps over ${bytes.length} bytes, of ${enough}`)
        return result
      }
    }
    const read = walked(documentSteps(Buffer.concat([bytes, Buffer.from('}')])))
    t.match({ ...read, bytes: undefined }, { id: _id, rev: _rev, type, conflicts: 1 })
    t.ok(read.bytes.equals(bytes))
    const { _conflicts, ...plain } = document
    t.same(JSON.parse(String(Buffer.concat(walked(piecesWithRevision(read, '1-a'))))), plain)
    const { _id: id, _rev: rev, ...body } = plain
    t.same(JSON.parse(Buffer.concat(walked(bodyOf(read))).toString()), body)
  }
})
