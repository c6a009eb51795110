import t from 'tap'
import {
  MAX_IDS,
  MAX_UNREADABLE,
  nameUnreadable,
  RefusedLines,
  UnreadDocuments,
  unreadableError
} from '../lib/backup/unreadable.js'
import { CouchError } from '../lib/couch/errors.js'
import { InvalidDocumentError } from '../lib/json/document.js'

t.test('so many documents may be left out, with so many characters of ids, and no more', async (t) => {
  const failure = new CouchError('x', { error: 'bad', reason: 'r' })
  const quarter = (name: string) => name.repeat(MAX_IDS / 4)
  const refused = { message: /more than 1000 documents.*the first of them document "/ }

  await t.test('documents that cannot be read', async (t) => {
    const unread = { rev: '1-a', failure }
    const many = new UnreadDocuments()
    for (let i = 0; i < MAX_UNREADABLE; i++) many.set(`${i}`, unread)
    many.set('0', unread)
    t.throws(() => many.set('one more', unread), { ...refused, error: 'bad', cause: failure })
    const long = new UnreadDocuments()
    for (const name of 'abcd') long.set(quarter(name), unread)
    long.set(quarter('a'), unread)
    t.ok(long.delete(quarter('b')))
    t.notOk(long.delete(quarter('b')))
    long.set(quarter('e'), unread)
    t.throws(() => long.set('f', unread), refused)
  })
  await t.test('documents that cannot be stored, unless a later version counts', async (t) => {
    const superseded = new Set<number>()
    const lines = () => new RefusedLines(({ ordinal }) => !superseded.has(ordinal))
    const many = lines()
    for (let ordinal = 0; ordinal < MAX_UNREADABLE; ordinal++)
      many.add({ id: `${ordinal}`, ordinal, error: failure })
    superseded.add(7)
    many.add({ id: '7', ordinal: MAX_UNREADABLE, error: failure })
    t.equal(many.last.length, MAX_UNREADABLE)
    t.notOk(many.last.some(({ ordinal }) => ordinal === 7))
    t.throws(() => many.add({ id: 'one more', ordinal: 5000, error: failure }), {
      ...refused,
      error: 'too_large'
    })
    const long = lines()
    for (const [ordinal, name] of [...'abcd'].entries())
      long.add({ id: quarter(name), ordinal, error: failure })
    t.throws(() => long.add({ id: 'e', ordinal: 4, error: failure }), refused)
  })
})

t.test('what has failed is told without a URL, whatever it was', async (t) => {
  const [{ reason }] = nameUnreadable([['a', { failure: new InvalidDocumentError('broken') }]])
  t.match(reason, /^broken/)
  t.match(unreadableError([['a', { failure: new InvalidDocumentError('broken') }]]), {
    status: 0,
    error: 'bad_document',
    message: /^document "a"/
  })
})
