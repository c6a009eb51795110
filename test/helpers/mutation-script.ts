/**
 * Tests the tests by mutation: makes small changes of `lib/` in a copy of the project, one at a time, and runs the
 * tests of the room that come to the changed code, until one fails. Prints the mutants that no test detects.
 * `CONTRIBUTING.md` describes its use.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { appendFile, cp, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { setPriority, tmpdir } from 'node:os'
import { basename, join, relative } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Mutant, marked, mutantAt, mutantsOf, mutated } from './mutants.js'
import { ACCEPTED, FIXED, ROOMS } from './mutation-rooms.js'
import { randomOf } from './random.js'

const ROOT = join(__dirname, '../..')
/** Results of earlier runs, with which an interrupted run continues. */
const RESULTS = join(ROOT, '.mutation.jsonl')
const LEAST_SCORE = 0.85
/** How much longer than without a mutant a test may take, since a mutant may make it wait for ever. */
const PATIENCE = { factor: 4, milliseconds: 20_000 }

/** Milliseconds that a test may take without a mutant. */
const LONGEST_TEST = 600_000

/** After the name of a test that a mutant kept from ending. On a busy machine that says little. */
const LATE = '(late)'

type Outcome = 'passed' | 'failed' | 'late'

interface Tested {
  mutant: Mutant
  /** The test that detected the mutant, or `null`; of one that did not end, with `(late)`. */
  by: string | null
}

/** Measurements of a test that passes without a mutant. */
interface Measured {
  milliseconds: number
  /** The mutants whose code it reaches. */
  reached: ReadonlySet<Mutant>
}

type Tests = ReadonlyMap<string, Measured>

/** A copy of the project in which one mutant at a time is tried. */
class Copy {
  readonly directory: string
  #running: ChildProcess | undefined

  private constructor(directory: string) {
    this.directory = directory
  }

  static async make(): Promise<Copy> {
    const directory = await mkdtemp(join(tmpdir(), 'mutation-'))
    const left = new Set(['node_modules', '.git', 'dist', '.tap', '.bench', basename(RESULTS)])
    await cp(ROOT, directory, { recursive: true, filter: (path) => !left.has(relative(ROOT, path)) })
    await symlink(join(ROOT, 'node_modules'), join(directory, 'node_modules'))
    return new Copy(directory)
  }

  /** Runs the tests that come to a mutant, fastest first, until one fails. */
  async try(mutant: Mutant, tests: Tests): Promise<Tested> {
    const reaching = [...tests].filter(([, { reached }]) => reached.has(mutant))
    reaching.sort(([, a], [, b]) => a.milliseconds - b.milliseconds)
    const path = join(this.directory, mutant.file)
    const text = await readFile(path, 'utf8')
    await writeFile(path, mutated(text, mutant))
    try {
      for (const [test, { milliseconds }] of reaching) {
        const patience = PATIENCE.milliseconds + PATIENCE.factor * milliseconds
        const outcome = await this.run(test, patience)
        if (outcome !== 'passed') return { mutant, by: outcome === 'late' ? `${test} ${LATE}` : test }
      }
      return { mutant, by: null }
    } finally {
      await writeFile(path, text)
    }
  }

  /** Runs one test file in code that notes which mutants it comes to. @returns `null` when it fails */
  async measure(test: string, mutants: readonly Mutant[]): Promise<Measured | null> {
    await rm(this.#notes, { force: true })
    const began = performance.now()
    if ((await this.run(test, LONGEST_TEST)) !== 'passed') return null
    const notes = await readFile(this.#notes, 'utf8').catch(() => '')
    const numbers = notes.split('\n').filter((line) => line !== '')
    const reached = new Set(numbers.map((number) => mutants[Number(number)]!))
    return { milliseconds: performance.now() - began, reached }
  }

  get #notes(): string {
    return join(this.directory, '.reached')
  }

  /** Puts marks at the mutants, or takes them away again. */
  async mark(files: ReadonlyMap<string, string>, mutants: readonly Mutant[]): Promise<void> {
    for (const [file, text] of files) {
      const inFile = new Map([...mutants.entries()].filter(([, mutant]) => mutant.file === file))
      await writeFile(join(this.directory, file), marked(text, inFile))
    }
  }

  /** Runs one test file. */
  async run(test: string, patience: number): Promise<Outcome> {
    const child = spawn(process.execPath, ['--import=tsx', `test/${test}.test.ts`], {
      cwd: this.directory,
      env: { ...process.env, LONG: '1', TAP_BAIL: '1', TAP_TIMEOUT: '300', REACHED: this.#notes },
      stdio: 'ignore',
      // a process group of its own, so that everything the test has started can be ended
      detached: true
    })
    const ended = new AbortController()
    this.#running = child
    const exit = once(child, 'exit').then(([code]): Outcome => (code === 0 ? 'passed' : 'failed'))
    const late = delay<Outcome>(patience, 'late', { signal: ended.signal }).catch((): Outcome => 'late')
    const outcome = await Promise.race([exit, late])
    ended.abort()
    this.#kill()
    await exit
    return outcome
  }

  #kill(): void {
    try {
      process.kill(-this.#running!.pid!, 'SIGKILL')
    } catch {
      // the process has ended already
    }
  }

  /** Ends the running test and deletes the copy. Synchronous, to run when this process exits. */
  remove(): void {
    if (this.#running) this.#kill()
    rmSync(this.directory, { recursive: true, force: true })
  }
}

/** Reads the files of a room. */
async function filesOf(prefixes: readonly string[]): Promise<Map<string, string>> {
  const entries = await readdir(join(ROOT, 'lib'), { recursive: true })
  const all = entries.map((entry) => join('lib', entry)).filter((file) => /(?<!\.d)\.ts$/.test(file))
  const files = new Map<string, string>()
  for (const prefix of prefixes) {
    const found = all.filter((file) => file.startsWith(prefix))
    if (found.length === 0) throw new Error(`no file begins with ${prefix}: correct mutation-rooms.ts`)
    for (const file of found) files.set(file, await readFile(join(ROOT, file), 'utf8'))
  }
  return files
}

/** Chooses the fixed mutants and `count` others, evenly from the files as far as they have mutants. */
function sample(room: string, files: ReadonlyMap<string, string>, count: number, seed: number): Mutant[] {
  const random = randomOf(seed)
  const queues = [...files].map(([file, text]) => shuffled(mutantsOf(file, text), random))
  const chosen = fixedOf(room, files)
  const size = chosen.length + count
  for (let queue = 0; chosen.length < size && queues.some(({ length }) => length > 0); queue++) {
    const mutant = queues[queue % queues.length]!.pop()
    if (mutant && !isAccepted(mutant, files.get(mutant.file)!)) chosen.push(mutant)
  }
  return chosen
}

function shuffled<T>(values: T[], random: () => number): T[] {
  for (let last = values.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1))
    ;[values[last], values[other]] = [values[other]!, values[last]!]
  }
  return values
}

/**
 * Returns the fixed mutants of a room.
 * @throws when the text of one does not occur exactly once
 */
function fixedOf(room: string, files: ReadonlyMap<string, string>): Mutant[] {
  return FIXED.filter((fixed) => fixed.room === room).map(({ find, replacement, promise }) => {
    const places = [...files].flatMap(([file, text]) =>
      [...text.matchAll(new RegExp(find, 'g'))].map(({ index, 0: { length } }) =>
        mutantAt(file, text, index, index + length, replacement)
      )
    )
    if (places.length !== 1)
      throw new Error(`${find} occurs ${places.length} times in ${room}: correct mutation-rooms.ts`)
    return { ...places[0]!, what: `${promise}: ${places[0]!.what}` }
  })
}

const isAccepted = (mutant: Mutant, text: string): boolean =>
  ACCEPTED.some(
    ({ files, line, what }) =>
      files.some((prefix) => mutant.file.startsWith(prefix)) &&
      line.test(text.split('\n')[mutant.line - 1]!) &&
      what.test(mutant.what)
  )

/** Returns the key of a mutant's result. It changes with the file, so that the mutant is tried again then. */
function keyOf({ file, start, replacement }: Mutant, text: string): string {
  return createHash('sha1')
    .update(JSON.stringify([file, text, start, replacement]))
    .digest('hex')
}

/** Reads which test detected which mutant. Other mutants are tried again, since tests may have been added. */
async function readResults(): Promise<Map<string, string>> {
  const text = await readFile(RESULTS, 'utf8').catch(() => '')
  const lines = text.split('\n').filter((line) => line !== '')
  return new Map(lines.map((line) => JSON.parse(line) as [string, string]))
}

/** Runs each test without a mutant, and returns what is known of those that pass. If others fail, so does the run. */
async function measure(
  copies: readonly Copy[],
  tests: readonly string[],
  files: ReadonlyMap<string, string>,
  mutants: readonly Mutant[]
): Promise<Tests> {
  const measured = new Map<string, Measured>()
  const open = [...tests]
  const work = async (copy: Copy) => {
    await copy.mark(files, mutants)
    for (let test = open.shift(); test; test = open.shift()) {
      // twice, since a test may be late on a busy machine
      const found = (await copy.measure(test, mutants)) ?? (await copy.measure(test, mutants))
      if (found) measured.set(test, found)
      else {
        console.error(`left out: test/${test}.test.ts fails without a mutant`)
        process.exitCode = 1
      }
    }
    await copy.mark(files, [])
  }
  await Promise.all(copies.map(work))
  return measured
}

/** Tries the sample of one room, and returns its score. */
async function testRoom(room: string, copies: readonly Copy[], count: number, seed: number): Promise<number> {
  const { files: prefixes, tests } = ROOMS[room]!
  const files = await filesOf(prefixes)
  const mutants = sample(room, files, count, seed)
  const earlier = await readResults()
  const results: Tested[] = []
  const open: Mutant[] = []
  for (const mutant of mutants) {
    const by = earlier.get(keyOf(mutant, files.get(mutant.file)!))
    if (by === undefined) open.push(mutant)
    else results.push({ mutant, by })
  }
  const measured: Tests = open.length > 0 ? await measure(copies, tests, files, [...open]) : new Map()
  const work = async (copy: Copy) => {
    for (let mutant = open.shift(); mutant; mutant = open.shift()) {
      const tested = await copy.try(mutant, measured)
      results.push(tested)
      const key = keyOf(mutant, files.get(mutant.file)!)
      if (tested.by !== null) await appendFile(RESULTS, `${JSON.stringify([key, tested.by])}\n`)
      console.error(`${tested.by ?? 'SURVIVED'}  ${nameOf(mutant)}`)
    }
  }
  await Promise.all(copies.map(work))
  return report(room, results)
}

const nameOf = ({ file, line, what }: Mutant) => `${file}:${line}  ${what}`

function report(room: string, results: readonly Tested[]): number {
  const survivors = results.filter(({ by }) => by === null)
  const killed = results.length - survivors.length
  const late = results.filter(({ by }) => by?.endsWith(LATE)).length
  const score = killed / results.length
  console.log(
    `${room}: ${results.length} mutants, ${killed} killed (${late} late), ${survivors.length} survived, ${Math.round(score * 100)} %`
  )
  for (const { mutant } of survivors) console.log(`  ${nameOf(mutant)}`)
  return score
}

function numberOf(name: string, otherwise: number): number {
  const value = Number(process.env[name] ?? otherwise)
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} must be a whole number of at least 1`)
  return value
}

async function main(): Promise<void> {
  setPriority(19)
  const rooms = process.env.ROOM?.split(',') ?? Object.keys(ROOMS)
  const unknown = rooms.filter((room) => !Object.hasOwn(ROOMS, room))
  if (unknown.length > 0) throw new Error(`ROOM does not know ${unknown}, only ${Object.keys(ROOMS)}`)
  const count = numberOf('MUTANTS', 40)
  const seed = numberOf('SEED', 1)
  const copies = await Promise.all(Array.from({ length: numberOf('JOBS', 2) }, () => Copy.make()))
  process.on('exit', () => {
    for (const copy of copies) copy.remove()
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  for (const room of rooms) {
    if ((await testRoom(room, copies, count, seed)) < LEAST_SCORE) process.exitCode = 1
  }
}

void main()
