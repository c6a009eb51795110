import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ServerScope } from 'nano'
import type { Requester } from './backups.js'
import type { DatabaseNames } from './databases.js'
import type { BackupEvent } from './events.js'
import type { MetricsOptions } from './metrics.js'
import type { VerifyDepth } from './verify.js'
import type { WebhookStore } from './webhooks.js'

/** The permission that a request needs, and the scheme of its route. */
export interface AuthorizeContext {
  action: 'blockchain.optools.settings'
  /** `session` for routes under `/api`, `api-key` for routes under `/ak/api`. */
  scheme: 'session' | 'api-key'
}

/**
 * Decides whether a request may be served, before anything of its body is read. Returning allows, but for `false` (403),
 * and may tell who asks, for the transaction. Throwing refuses, with the error's `statusCode` from 400 to 599, else with
 * 500, and so does replying itself, or not answering in `timeouts.authorize`.
 */
export type Authorize = (
  request: FastifyRequest,
  context: AuthorizeContext,
  reply: FastifyReply
  // biome-ignore lint/suspicious/noConfusingVoidType: a hook that returns nothing allows
) => Requester | undefined | void | Promise<Requester | undefined | void>

/** The argument of `rebuildWhitelist`. */
export interface RebuildContext {
  /** Transaction of the restore. */
  tx_id: string
}

/** How clients' webhooks are called. */
export interface ClientWebhookOptions {
  /** Narrows which URLs may be called. Default: every http(s) URL whose address is not refused anyway. */
  allow?: (url: URL) => boolean | Promise<boolean>
  /** Attempts before giving up. Default 3. */
  attempts?: number
  /** Time for one attempt, connection and reply, in milliseconds. Default 10 000. */
  timeout?: number
}

/** Bounds, each with a default that suits a console of some 100,000 documents. */
export interface Limits {
  /** Bytes of an uploaded backup: of those that arrive, and of what they inflate to. Default 1 GiB. */
  uploadBytes?: number
  /** Bytes that a legacy backup's `compressed_docs` may inflate to, those of all its databases together. Default 1 GiB. */
  inflatedBytes?: number
  /** Bytes of one appended attachment. Default 32 MiB. */
  attachmentBytes?: number
  /** Attachments appended to one backup. Default 1,000. */
  attachments?: number
  /** Bytes of all attachments appended to one backup. Default 256 MiB. */
  attachmentsBytes?: number
  /**
   * Bytes that everything spooled at a time may take together: of uploads, appended attachments and large documents,
   * of all registrations in this process with the same `spoolDirectory`. Default: twice `uploadBytes`.
   */
  spoolBytes?: number
  /**
   * Backups that are read at a time, by `GET` or `dbBackups.get`. 1 to 1,000, default 4. One that nobody reads on takes
   * up to 10 MiB of memory.
   */
  downloads?: number
  /**
   * Uploads that are read, and whose restores have not begun yet. 1 to 1,000, default 4. Each keeps a document of up to
   * 4 MiB in memory, twice for a moment.
   */
  uploads?: number
  /**
   * Appends that are received and stored at a time. Further ones wait for `timeouts.control`, then they are refused with
   * 503. 1 to 1,000, default 16.
   */
  appends?: number
  /**
   * Bytes of the largest request to CouchDB, at least 65 536. Larger ones are divided where they can be; a document or
   * an attachment that takes more by itself is sent as it is, and named when it is refused. Refusals (413) lower the bound
   * as well. Default 1 MiB, which nginx takes unless it is configured otherwise.
   */
  requestBytes?: number
}

/** Where backups are kept. */
export interface BackupsOptions {
  /**
   * The CouchDB that keeps the backups, when it is not the one of the databases: as `couch`, with credentials of its own.
   */
  couch?: ServerScope | (() => ServerScope)
  /** The database that keeps the backups. Has to be given with `couch`; without, as `databases.backups`. */
  database?: string
  /**
   * With `couch`: the id of this console, by which it knows its backups among those of others: 1 to 64 characters of
   * `A-Z a-z 0-9 . _ : -`. Default: an id that it keeps beside the system database. Give a console that was rebuilt the id
   * of the former one, which the refusal of `remove` tells, and it goes on as that one.
   */
  console?: string
}

/** Time-outs in milliseconds. */
export interface Timeouts {
  /** The host's `authorize`. Default 10 000. */
  authorize?: number
  /** A control call to CouchDB. Default 30 000. */
  control?: number
  /** Silence, or less than 1 KiB, on a streamed call to CouchDB or of the body of a request. Default 60 000. */
  idle?: number
  /** The host's `rebuildWhitelist`. Default 120 000. */
  rebuildWhitelist?: number
  /** A call of the host's webhook store. Default 120 000, which `createCouchWebhookStore` stays below. */
  webhooks?: number
  /** The host's `versions`. Default 10 000. */
  versions?: number
  /** A call of the host's `encryption.key`. Default 10 000. */
  key?: number
  /** A lease that was not renewed for so long is taken over. 2,000 to 3,600,000, default 30 000. */
  lease?: number
  /** How long closing the server waits for a running operation to stop. Default 10 000. */
  close?: number
}

/** When backups are made. */
export interface ScheduleOptions {
  /**
   * When a backup is due: a cron expression of five fields (minute, hour, day of the month, month, day of the week), or
   * `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
   */
  cron: string
  /**
   * Time zone of `cron`, by its IANA name. Where clocks go forward, what is due in the hour that is left out runs right
   * after it; where they go back, what is due in the hour that comes twice runs once. Default `'UTC'`.
   */
  timezone?: string
  /**
   * A run begins up to so many milliseconds late, by chance, on each instance. Shorter than the time between two runs.
   * Default 0.
   */
  jitter?: number
  /**
   * A run is skipped when a good backup began at most so many milliseconds before it was due. Keep it shorter than the
   * time between two runs: a backup begins a little later than it is due. Default 0, at most 366 days.
   */
  unlessYoungerThan?: number
  /**
   * When the newest backup is verified, by exactly one instance and with the lease held: `'weekly'` is Sunday 03:00 in
   * `timezone`, `'daily'` 03:00, `'monthly'` 03:00 of the first. Default: never.
   */
  verify?: VerifySchedule | 'daily' | 'weekly' | 'monthly'
}

/** When the newest backup is verified, and how far. */
export interface VerifySchedule {
  /** A cron expression like that of {@link ScheduleOptions}, in the same time zone. */
  cron: string
  /** Default `'data'`. */
  depth?: VerifyDepth
}

/** How a running backup or restore bridges faults of the database. */
export interface Retry {
  /** Attempts of one call before the operation fails. Default 14. */
  attempts?: number
  /** First wait between two attempts, in milliseconds; doubles each time. Default 250. */
  wait?: number
  /** Longest wait, in milliseconds. Default 1500. */
  longest?: number
}

/**
 * How far backups share what did not change: a backup stores what changed since the last complete one, and lists the
 * chunks of that one. Each is whole by itself.
 */
export interface Incremental {
  /** Most backups that are based on each other in a row before one is made in full. 0: all are. Default 1,000. */
  chain?: number
  /**
   * Most of what a backup lists of a database that may be documents which no longer count, as a share of the bytes that are
   * read for it. The next backup writes chunks anew where it is more. 0.05 to 0.9, default 0.25.
   */
  waste?: number
}

/** Seals what backups hold, so that who can read or write the database that keeps them can neither read nor forge it. */
export interface Encryption {
  /** Id of the key for what is written: 1 to 64 characters of `A-Z a-z 0-9 . _ : / -`. It is stored and shown. */
  current: string
  /**
   * Returns the key of an id: 32 random bytes. Called whenever a backup is opened or made, and bounded by `timeouts.key`.
   * Keep every key for as long as a backup needs it: what is sealed with a lost key is lost. What it throws is told by its
   * name and code alone.
   */
  key: (keyId: string) => Uint8Array | Promise<Uint8Array>
  /**
   * Whether backups that are not sealed may be read and restored. With `'read'`, who can write to the database can put a
   * forged backup that is not sealed in place of a sealed one. Default `'read'`.
   */
  plain?: 'read' | 'refuse'
}

/**
 * Which good backups pruning keeps, in the terms of restic's `forget --keep-*`: one that any rule keeps stays. At least
 * one rule has to keep something.
 */
export interface KeepRules {
  /** How many of the last good backups to keep. Every number: 0 to 100,000; 0 is no rule. */
  last?: number
  /** The newest of each of the last so many hours that have a backup. With fewer hours, the oldest as well. */
  hourly?: number
  /** Like `hourly`, for days. */
  daily?: number
  /** Like `hourly`, for ISO weeks, from Monday to Sunday. */
  weekly?: number
  /** Like `hourly`, for months. */
  monthly?: number
  /** Like `hourly`, for years. */
  yearly?: number
  /** Keeps those that began less than this before the newest good one: `"1y5m7d2h"` (years, months, days, hours). */
  within?: string
  /** IANA time zone whose hours, days, weeks, months and years count, such as `"Europe/Berlin"`. Default `"UTC"`. */
  timezone?: string
}

/**
 * Options of the plugin. Registration fails with a TypeError that names the option that is missing, wrong or not known.
 */
export interface DbBackupsOptions {
  /** nano's server scope, or a function that returns one (called for every request, so credentials can rotate). */
  couch: ServerScope | (() => ServerScope)
  /**
   * The names of the databases, or a function that returns them. A function is called for every request, call and look at
   * what other instances have left; an operation ends on the databases on which it has begun. The lease lies in the
   * system database: change its name only while no instance runs a backup or restore.
   */
  databases: DatabaseNames | (() => DatabaseNames)
  /** Keeps the backups elsewhere, as on a CouchDB of their own: then a loss of the databases' CouchDB loses none. */
  backups?: BackupsOptions
  /** Decides whether a request may be served. */
  authorize: Authorize
  /** Where restore transactions are kept. `createCouchWebhookStore` and `createMemoryWebhookStore` make one. */
  webhooks: WebhookStore
  /**
   * Called after a restore has written its documents. Its failure, or no answer in `timeouts.rebuildWhitelist`, makes the
   * transaction an `error`.
   */
  rebuildWhitelist: (context: RebuildContext) => void | Promise<void>
  /** Versions to record in a backup as `ibp_versions`, at most 64 KiB of JSON. A backup does not start without them. */
  versions?: Record<string, unknown> | (() => Record<string, unknown> | Promise<Record<string, unknown>>)
  /**
   * Origin (and path) that clients reach the server at, or a function that returns it, called for every request. Default:
   * the request's own.
   */
  publicUrl?: string | (() => string | undefined)
  /** Receives every {@link BackupEvent}. Errors that it throws are logged. */
  onEvent?: (event: BackupEvent) => void | Promise<void>
  /** Prometheus metrics. Default: none. */
  metrics?: MetricsOptions
  /** Types of documents to leave out of backups, besides the built-in ones. */
  excludeTypes?: readonly string[]
  /**
   * Decides how a backup goes on when one document of a database cannot be read, or is too large to be stored.
   *
   * - `'report'`: the backup goes on without it, and names it in `dbs.<database>.unreadable`, in the log, the event and
   *   the metrics. More than 1,000 in a database fail the backup all the same.
   * - `'fail'`: the backup fails and names it.
   *
   * Default `'report'`: one damaged document must not leave all others without a backup.
   */
  onUnreadable?: 'report' | 'fail'
  /**
   * Which good backups pruning keeps. `'athena'`: the one nearest to each age of 0 to 7, 10, 20, 30, 60, 90 and 120 days.
   * The newest good one, those made with `protect`, and those that run always stay. Default: nothing is pruned.
   */
  keep?: KeepRules | 'athena'
  /** How long pruning keeps failed backups, in milliseconds since they ended. 0 to ten years, default 7 days. */
  keepFailed?: number
  /** How clients' webhooks are called. */
  clientWebhook?: ClientWebhookOptions
  /**
   * Makes backups by itself, on exactly one of the instances that share the databases. A run that was missed while no
   * instance was up is made up for, once, when one starts; a console without any backup gets one then. A run that fails
   * is tried again, after one minute, then two, four, up to an hour, until the next one is due. `'athena'`: 01:00 UTC,
   * jitter ten minutes, unless a good backup is younger than twelve hours. `dbBackups.schedule` tells how it goes.
   * Default: none.
   */
  schedule?: ScheduleOptions | 'athena'
  /**
   * A restore makes an ordinary backup of all databases before it writes, so that it can be taken back, unless it is told
   * not to. Default `true`, over HTTP as well.
   */
  safety?: boolean
  /**
   * Ids of the documents of the system database that hold the console's own settings, at most 100. A restore that is
   * about to change one names it in its transaction, outcome, log and events: with the settings of another console, this
   * console uses the databases, address and keys of the other. Default `['00_settings_athena']`.
   */
  settingsDocuments?: readonly string[]
  /**
   * Names of the host's OpenAPI security schemes, for the routes of each scheme of `authorize`. Default: the routes
   * have no `security`, and whatever the host's document says for all routes counts.
   */
  securitySchemes?: Partial<Record<AuthorizeContext['scheme'], string>>
  /**
   * Directory for what is spooled: uploads, appended attachments and large documents. Default: the system's temporary
   * directory.
   */
  spoolDirectory?: string
  /** Bounds in bytes and numbers. */
  limits?: Limits
  /** Time-outs in milliseconds. */
  timeouts?: Timeouts
  /** How a running backup or restore bridges faults of the database. */
  retry?: Retry
  /** How far backups share what did not change. */
  incremental?: Incremental
  /** Seals backups. Default: they are compressed only. May be switched on and off: see {@link Encryption.plain}. */
  encryption?: Encryption
}
