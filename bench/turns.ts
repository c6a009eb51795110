import { openSync, readSync } from 'node:fs'
import { type Profiler, Session } from 'node:inspector'

/** Milliseconds between two looks. */
const LOOK = 1
/** Microseconds between two samples of the stack. */
const SAMPLE = 500
/** Frames of a stack that are told, and stacks of a turn. */
const FRAMES = 8
const STACKS = 3

/** A turn of the event loop. */
export interface Turn {
  /** Milliseconds of processor time of the thread. */
  cpu: number
  /** Milliseconds on the clock: on a busy machine the thread waits for a core in between. */
  wall: number
  /** What ran in it, the most first, where the stack was sampled. */
  stacks?: string[]
}

/** The time that a function took, without what it called. */
export interface FunctionTime {
  /** Its name and place, or in brackets what the engine did itself. */
  name: string
  /** Milliseconds on the clock. */
  ms: number
}

interface SeenTurn extends Turn {
  /** Microseconds, on the clock of the profiler. */
  from: number
  to: number
}

/**
 * Watches the turns of this thread's event loop with a timer of one millisecond: it comes when a turn ends, so the
 * processor time between two of its calls is that of the longest turn between them, and about a millisecond at most of
 * others. Where the system does not tell the thread's processor time (other than Linux), it is the time on the clock.
 */
export class TurnWatch {
  readonly #cpu = threadClock()
  readonly #timer: NodeJS.Timeout
  readonly #long: number
  readonly #turns: SeenTurn[] = []
  readonly #session: Session | undefined
  #longest: SeenTurn = { cpu: 0, wall: 0, from: 0, to: 0 }

  /** @param options.profile samples the stack, to tell what turns longer than `long` milliseconds were made of */
  constructor({ profile = false, long = 25 } = {}) {
    this.#long = long
    this.#session = profile ? startProfiler() : undefined
    let [cpu, wall] = [this.#cpu(), performance.now()]
    this.#timer = setInterval(() => {
      const [cpuNow, wallNow] = [this.#cpu(), performance.now()]
      this.#note(cpuNow - cpu, wallNow - wall)
      cpu = cpuNow
      wall = wallNow
    }, LOOK)
  }

  #note(cpu: number, wall: number): void {
    if (cpu <= this.#longest.cpu && cpu <= this.#long) return
    const to = Number(process.hrtime.bigint() / 1000n)
    const turn = { cpu, wall, to, from: to - wall * 1000 }
    if (cpu > this.#longest.cpu) this.#longest = turn
    if (cpu > this.#long && this.#session) this.#turns.push(turn)
  }

  /** Ends the watch. @returns the longest turn, and with `profile` all that were long, and what took the time */
  stop(): { longest: Turn; long: Turn[]; functions: FunctionTime[] } {
    clearInterval(this.#timer)
    const profile = this.#session && endProfiler(this.#session)
    const told = ({ cpu, wall, from, to }: SeenTurn): Turn => ({
      cpu,
      wall,
      ...(profile && { stacks: stacksOf(profile, from, to) })
    })
    return {
      longest: told(this.#longest),
      long: this.#turns.map(told),
      functions: profile ? functionsOf(profile) : []
    }
  }
}

/** Returns a clock of the processor time of the main thread, in milliseconds. */
function threadClock(): () => number {
  try {
    // Read anew at every look; the first number is nanoseconds on a core.
    const file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r')
    const text = Buffer.alloc(64)
    return () => Number.parseInt(text.toString('latin1', 0, readSync(file, text, 0, 64, 0)), 10) / 1e6
  } catch {
    return () => performance.now()
  }
}

function startProfiler(): Session {
  const session = new Session()
  session.connect()
  session.post('Profiler.enable')
  session.post('Profiler.setSamplingInterval', { interval: SAMPLE })
  session.post('Profiler.start')
  return session
}

/** The session answers before `post` returns. */
function endProfiler(session: Session): Profiler.Profile {
  let profile: Profiler.Profile | undefined
  session.post('Profiler.stop', (error, result) => {
    if (!error) profile = result.profile
  })
  session.disconnect()
  if (!profile) throw new Error('the profiler told nothing')
  return profile
}

/** Returns what took the time of a profile, the most first. */
function functionsOf(profile: Profiler.Profile): FunctionTime[] {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]))
  const times = new Map<string, number>()
  for (const [i, id] of (profile.samples ?? []).entries()) {
    const name = frameOf(nodes.get(id) as Profiler.ProfileNode)
    times.set(name, (times.get(name) ?? 0) + (profile.timeDeltas?.[i] ?? 0) / 1000)
  }
  return [...times].map(([name, ms]) => ({ name, ms })).sort((a, b) => b.ms - a.ms)
}

function stacksOf(profile: Profiler.Profile, from: number, to: number): string[] {
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]))
  const parents = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id]))
  )
  const stack = (id: number | undefined): string[] =>
    id === undefined ? [] : [frameOf(nodes.get(id) as Profiler.ProfileNode), ...stack(parents.get(id))]
  const times = new Map<string, number>()
  let at = profile.startTime
  for (const [i, id] of (profile.samples ?? []).entries()) {
    const took = profile.timeDeltas?.[i] ?? 0
    at += took
    if (at < from || at > to) continue
    const text = stack(id).slice(0, FRAMES).join(' < ')
    times.set(text, (times.get(text) ?? 0) + took)
  }
  const sorted = [...times].sort(([, a], [, b]) => b - a).slice(0, STACKS)
  return sorted.map(([text, took]) => `${(took / 1000).toFixed(1)} ms ${text}`)
}

function frameOf({ callFrame: { functionName, url, lineNumber } }: Profiler.ProfileNode): string {
  const name = functionName || '(anonymous)'
  return url === '' ? name : `${name} ${url.split('/').slice(-2).join('/')}:${lineNumber + 1}`
}
