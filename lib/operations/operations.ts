import type { Readable } from 'node:stream'
import type { FastifyBaseLogger } from 'fastify'
import type {
  BackupContent,
  BackupSummary,
  CopyOptions,
  CopyOutcome,
  PruneOptions,
  PruneOutcome,
  RekeyOutcome,
  RemovedBackups,
  Requester,
  RestoreOptions,
  StartedBackup,
  StartedRestore,
  StartOptions
} from '../../types/backups.js'
import type { DatabaseNames } from '../../types/databases.js'
import type { DiffOptions, DiffStream } from '../../types/diff.js'
import type { DbBackups, RunningOperation, ScheduleState } from '../../types/index.js'
import type { VerifyOptions, VerifyReport } from '../../types/verify.js'
import type { ShownTransaction } from '../../types/webhooks.js'
import { boundedBody } from '../bytes/body.js'
import { cutRequester } from '../bytes/cut-text.js'
import { abandon } from '../bytes/discard.js'
import { slicesOf } from '../bytes/views.js'
import { isUnavailable } from '../couch/errors.js'
import { nameOfServer } from '../databases.js'
import {
  AppendBusyError,
  DatabaseUnavailableError,
  LeaseLostError,
  TooManyRequestsError,
  TooManyUploadsError
} from '../errors.js'
import type { ResolvedOptions } from '../options.js'
import type { Append } from '../repository/appender.js'
import type { Clock } from '../schedule/clock.js'
import { HeldBytes } from '../spool/held-bytes.js'
import {
  checkAttach,
  checkCancel,
  checkCopy,
  checkDiff,
  checkPruneOptions,
  checkRestoreOptions,
  checkRestores,
  checkSource,
  checkStartOptions,
  checkVerifyOptions
} from './arguments.js'
import { CurrentDatabases } from './current-databases.js'
import type { DatabaseSet } from './database-set.js'
import { Instance } from './instance.js'
import { type PruneRequest, pruningBy, removalOf, unattended } from './prunes.js'
import { shown } from './restore-history.js'
import { Schedule } from './schedule.js'
import { VerifySchedule } from './verify-schedule.js'

/** Bytes of an attachment that are sent at a time. */
const PIECE = 64 * 1024

/** The operations behind HTTP and `fastify.dbBackups`. Each call uses the database names of its moment. */
export class Operations implements DbBackups {
  readonly #options: ResolvedOptions
  readonly #pathPrefix: string
  readonly #instance: Instance
  readonly #databases: CurrentDatabases
  #watching: NodeJS.Timeout | undefined
  readonly #schedule: Schedule | undefined
  readonly #verifySchedule: VerifySchedule | undefined

  /** @param more.pathPrefix begins the paths of routes @param more.clock the system's, but for tests */
  constructor(
    options: ResolvedOptions,
    log: FastifyBaseLogger,
    { pathPrefix = '', clock }: { pathPrefix?: string; clock?: Clock } = {}
  ) {
    const { schedule } = options
    this.#options = options
    this.#pathPrefix = pathPrefix
    this.#instance = new Instance(options, log, clock)
    this.#databases = new CurrentDatabases(this.#instance, () => options.databases)
    const after = async (set: DatabaseSet, gap: number) => {
      if (!options.keep) return
      const now = this.#instance.clock.now()
      await (await set.prune(unattended(pruningBy({}, options, now), { gap, now }))).finished
    }
    this.#schedule = schedule && new Schedule(this.#instance, schedule, this.#databases, after)
    const verify = schedule?.verify && { ...schedule.verify, timezone: schedule.timezone }
    this.#verifySchedule = verify && new VerifySchedule(this.#instance, verify, this.#databases)
  }

  get schedule(): ScheduleState | undefined {
    if (!this.#schedule) return undefined
    const verify = this.#verifySchedule?.state
    return { ...this.#schedule.state, ...(verify && { verify }) }
  }

  get running(): readonly RunningOperation[] {
    return this.#instance.running.told
  }

  get databases(): Required<DatabaseNames> {
    return { ...this.#options.databases }
  }

  async cancel(id: string, options: { requester?: Requester } = {}): Promise<RunningOperation> {
    checkCancel(id, options)
    return this.#instance.running.cancel(id, cutRequester(options.requester))
  }

  async transaction(txId: string): Promise<ShownTransaction | null> {
    const transaction = await foreground(() => this.#instance.transactions.get(txId))
    return transaction && shown(transaction)
  }

  async restores(options: { limit?: number } = {}): Promise<ShownTransaction[]> {
    checkRestores(options)
    return foreground(() => this.#instance.history.latest(this.#instance.transactions, options.limit ?? 20))
  }

  async start(options: StartOptions = {}): Promise<StartedBackup> {
    checkStartOptions(options)
    return this.#answer(async () => (await this.#databases.toStart('backup')).start(options))
  }

  async restore(
    source: { id: string } | { body: Readable },
    options: RestoreOptions = {}
  ): Promise<StartedRestore> {
    checkSource(source)
    const urlOf = this.urlsUnder(this.#options.publicUrl ?? '')
    const { id, body: given } = source as { id: string; body?: Readable }
    if (given === undefined) {
      checkRestoreOptions(options)
      return this.restoreFrom({ id }, options, urlOf)
    }
    const { limits, timeouts } = this.#options
    const body = boundedBody(given, { limit: limits.uploadBytes, idle: timeouts.idle })
    try {
      checkRestoreOptions(options)
      return await this.restoreFrom({ body }, options, urlOf)
    } catch (error) {
      // The sender of the body waits for the host's reply.
      body.destroy()
      abandon(given)
      throw error
    }
  }

  /** Returns what makes the URL of a path of the routes, below the prefix that they are registered with. */
  urlsUnder(origin: string): (path: string) => string {
    return (path) => `${origin}${this.#pathPrefix}${path}`
  }

  /** Starts a restore for a route, which handles a refused body itself. `urlOf` makes a path absolute. */
  async restoreFrom(
    source: { id: string } | { body: Readable },
    options: RestoreOptions,
    urlOf: (path: string) => string
  ): Promise<StartedRestore> {
    const restore = async () => (await this.#databases.toStart('restore')).restore(source, options, urlOf)
    if ('id' in source) return this.#answer(restore)
    const full = () => new TooManyUploadsError(this.#options.limits.uploads)
    return this.#instance.uploads.run(full, () => foreground(restore))
  }

  async get(id: string): Promise<BackupContent> {
    return this.#instance.downloads.open(() => foreground(() => this.#databases.now().stored.get(id)))
  }

  async summary(id: string): Promise<BackupSummary> {
    return this.#answer(() => this.#databases.now().stored.summary(id))
  }

  diff(id: string, options: DiffOptions): DiffStream {
    checkDiff(id, options)
    return this.#databases.now().diffs.read(id, options)
  }

  async list(): Promise<{ ids: string[] }> {
    return { ids: [...(await this.sharedList())] }
  }

  /** Lists for a route: simultaneous callers share one list. */
  sharedList(): Promise<readonly string[]> {
    return foreground(() => this.#databases.now().stored.list())
  }

  async attach(
    id: string,
    name: string,
    data: string | Buffer,
    options: { contentType?: string } = {}
  ): Promise<void> {
    checkAttach(name, data, options)
    const bytes = typeof data === 'string' ? Buffer.from(data) : data
    const open = async function* () {
      // Each piece has to be taken in `timeouts.idle`.
      yield* slicesOf(bytes, PIECE)
    }
    const { stored } = this.#databases.now()
    await foreground(() => stored.append({ id, name, data: { length: bytes.length, open }, ...options }))
  }

  async remove(id: string): Promise<RemovedBackups> {
    await this.#answer(() => this.#databases.now().stored.find(id))
    const { removed, freed_bytes, parts, orphans } = await this.#prune(removalOf(id))
    return { removed, freed_bytes, parts, orphans }
  }

  async prune(options: PruneOptions = {}): Promise<PruneOutcome> {
    checkPruneOptions(options)
    const request = this.#pruningBy(options)
    return options.dryRun
      ? this.#answer(() => this.#databases.now().previewPrune(request))
      : this.#prune(request)
  }

  async rekey(): Promise<RekeyOutcome> {
    const { finished } = await this.#answer(async () => (await this.#databases.toStart('rekey')).rekey())
    return foreground(() => finished)
  }

  async verify(id: string, options: VerifyOptions = {}): Promise<VerifyReport> {
    checkVerifyOptions(options)
    options.signal?.throwIfAborted()
    const [set, request] = await this.#answer(async () => {
      const set = this.#databases.now()
      return [set, await set.prepareVerify(id, options)] as const
    })
    if (request.depth === 'restore') await foreground(() => this.#databases.toStart('verify'))
    return foreground(() => set.verify(request))
  }

  async copy(id: string, options: CopyOptions): Promise<CopyOutcome> {
    checkCopy(options)
    options.signal?.throwIfAborted()
    const set = await this.#answer(async () => {
      const set = this.#databases.now()
      await set.checkCopyable(id)
      return set
    })
    return available(() => set.copy(id, options))
  }

  #pruningBy(options: PruneOptions): PruneRequest {
    const schedule = this.#schedule
    const comingRuns = schedule && ((now: number, newest?: number) => schedule.comingRuns(now, newest))
    return pruningBy(options, this.#options, this.#instance.clock.now(), comingRuns)
  }

  /** Waits for the end of a removal. Its begin alone takes a place. */
  async #prune(request: PruneRequest): Promise<PruneOutcome> {
    const { finished } = await this.#answer(async () =>
      (await this.#databases.toStart('prune')).prune(request)
    )
    return foreground(() => finished)
  }

  /** Appends a body, which `read` keeps until then. @param append.signal ends with the client */
  async append(append: Omit<Append, 'data'>, read: (into: HeldBytes) => Promise<void>): Promise<void> {
    const { stored } = this.#databases.now()
    const data = new HeldBytes(this.#instance.room)
    try {
      await this.#instance.appends.run(
        () => new AppendBusyError(append.id),
        async () => {
          await read(data)
          await foreground(() => stored.append({ ...append, data }))
        }
      )
    } finally {
      await data.clear()
    }
  }

  /** Makes a short call in its turn. @throws TooManyRequestsError, and what `call` throws */
  #answer<T>(call: () => Promise<T>): Promise<T> {
    const full = () => new TooManyRequestsError('others are answered first: try again')
    return this.#instance.requests.run(full, () => foreground(call))
  }

  /** Cleans up after instances that died, now and from time to time, and makes scheduled backups. */
  watch(): void {
    this.#watching = setInterval(() => this.#follow(), this.#options.timeouts.lease)
    this.#watching.unref()
    this.#follow()
    this.#schedule?.start()
    this.#verifySchedule?.start()
  }

  get deadline(): AbortSignal {
    return this.#instance.deadline
  }

  /** Lets operations end, then stops them and records that, in `timeouts.close`. Downloads go on as long. */
  async stop(): Promise<void> {
    const { jobs } = this.#instance
    const half = this.#options.timeouts.close / 2
    this.#instance.endRepliesWithin(this.#options.timeouts.close)
    clearInterval(this.#watching)
    this.#schedule?.stop()
    this.#verifySchedule?.stop()
    const sets = this.#databases.all
    for (const set of sets) set.refuse()
    await jobs.settled(half)
    for (const set of sets) set.stop()
    await jobs.settled(half)
    for (const set of sets) await set.abandon()
  }

  async close(): Promise<void> {
    await this.#instance.close()
  }

  #follow(): void {
    try {
      this.#databases.now().housekeeping.start()
    } catch (error) {
      this.#instance.events.emit({ type: 'check_failed', error: error as Error })
    }
  }
}

/** Makes a call that somebody waits for. @throws DatabaseUnavailableError for faults that may pass */
async function foreground<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await available(call)
  } catch (error) {
    if (error instanceof LeaseLostError) throw new DatabaseUnavailableError(error.message, { cause: error })
    throw error
  }
}

/** Makes a call. @throws DatabaseUnavailableError when the database does not answer */
async function available<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    if (!isUnavailable(error)) throw error
    const { server, error: code, reason } = error
    const told = `${code}, ${reason}`
    throw new DatabaseUnavailableError(server ? `${nameOfServer(server)}: ${told}` : told, { cause: error })
  }
}
