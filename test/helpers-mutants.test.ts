import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { marked, mutantsOf, mutated } from './helpers/mutants.js'
import { ACCEPTED, ROOMS } from './helpers/mutation-rooms.js'

/** Returns the texts that the mutants of a line produce. */
const texts = (line: string) => mutantsOf('a.ts', line).map((mutant) => mutated(line, mutant))

t.test('code is changed where a test should detect it', async (t) => {
  for (const [line, expected] of [
    ['a < b', ['a <= b']],
    ['a === b && c', ['a === b || c', 'a !== b && c']],
    ['if (a >= b) c', ['if (!(a >= b)) c', 'if (a > b) c']],
    ['if (!a) b', ['if (a) b']],
    ['const x = y ? 1 : 20', ['const x = !(y) ? 1 : 20', 'const x = y ? 2 : 20', 'const x = y ? 0 : 20']],
    ['await a()', [';', 'a()']],
    ['x += 2', [';', 'x -= 2', 'x += 3', 'x += 1']],
    ['const on = true', ['const on = false']],
    ['const HALF = () => a / b', ['const HALF = () => a * b']],
    ['const y = Math.min(a, b)', ['const y = Math.max(a, b)']]
  ] as const)
    t.strictSame(texts(line), expected, line)
})

t.test('changes that no test could detect are left out', async (t) => {
  for (const line of [
    "import a from 'b'",
    'interface A { b: 1 | true }',
    'type A = 1 | false',
    "const a = 'b' + c",
    'const size = 2 * 1024',
    'const IN_FLIGHT = 2',
    'const ROOM = 2 * SIZE + 8',
    'class A { constructor() { this.a = b } }'
  ])
    t.strictSame(texts(line), [], line)
})

t.test('marks tell which mutants a run comes to', async (t) => {
  const text = 'function f(a) {\n  if (a > 2) { g() }\n  return () => a + 1\n}\nconst b = !c\n'
  const marks = (code: string) => marked(text, new Map(numbered(code)))
  const numbered = (code: string) =>
    mutantsOf('a.ts', text)
      .filter(({ start, end }) => text.slice(start, end) === code)
      .map((mutant, number) => [number, mutant] as const)
  const [mark] = /^;.*?;/.exec(marks('!c')) ?? []
  t.match(mark, /REACHED, '0\\n'/)
  t.equal(marks('!c'), `${mark}${text}`, 'where the file is loaded')
  t.equal(marks('g()'), text.replace('{ g', `{${mark} g`), 'in a block')
  t.equal(marks('+'), text.replace('(a) {', `(a) {${mark}`), 'around what is no block')
})

t.test('every room has files, and its tests are there', async (t) => {
  const root = join(__dirname, '..')
  const files = readdirSync(join(root, 'lib'), { recursive: true }).map((file) => `lib/${file}`)
  for (const [room, { files: prefixes, tests }] of Object.entries(ROOMS)) {
    for (const prefix of prefixes)
      t.ok(
        files.some((file) => file.startsWith(prefix)),
        `${room}: ${prefix}`
      )
    for (const test of tests) t.ok(existsSync(join(root, `test/${test}.test.ts`)), `${room}: ${test}`)
  }
})

t.test('each mutant that is accepted is of a line that is there', async (t) => {
  const files = readdirSync('lib', { recursive: true, encoding: 'utf8' }).filter((path) =>
    path.endsWith('.ts')
  )
  const linesOf = (prefix: string) =>
    files
      .map((path) => join('lib', path))
      .filter((path) => path.startsWith(prefix))
      .flatMap((path) => readFileSync(path, 'utf8').split('\n'))
  for (const { files, line, why } of ACCEPTED)
    for (const prefix of files)
      t.ok(
        linesOf(prefix).some((text) => line.test(text)),
        `${prefix}: ${why}`
      )
})
