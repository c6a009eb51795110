// Compiled by `npm run lint`, never run: a type that differs from the schema of what is sent or given fails the compilation.
import type { Static } from '@sinclair/typebox'
import type { RegisterOptions } from 'fastify'
import type {
  BackupSummary,
  BackupsOptions,
  ClientWebhookOptions,
  CopyOptions,
  DatabaseNames,
  DbBackups,
  DbBackupsOptions,
  DiffOptions,
  Encryption,
  KeepRules,
  MetricsOptions,
  PruneOptions,
  RestoreOptions,
  StartOptions,
  VerifyOptions,
  WebhookNotice
} from '../../lib/index.js'
import type {
  Attach,
  Cancel,
  Copy,
  Diff,
  Prune,
  Restore,
  RestoresAsked,
  Start,
  Verify
} from '../../lib/operations/arguments.js'
import type * as operator from '../../lib/operator/schemas.js'
import type { Names, Options } from '../../lib/options.js'
import type { Rules } from '../../lib/retention/check-keep.js'
import type { Backup } from '../../lib/schemas/backup.js'
import type { Transaction } from '../../lib/schemas/transaction.js'

/** Spelled out, so that types that were made in different ways can be compared. */
type Plain<T> = T extends readonly (infer Element)[]
  ? Plain<Element>[]
  : T extends object
    ? { [Member in keyof T]: Plain<T[Member]> }
    : T

type Same<A, B> =
  (<T>() => T extends Plain<A> ? 1 : 2) extends <T>() => T extends Plain<B> ? 1 : 2
    ? true
    : { schema: Plain<A>; type: Plain<B> }

type SentBackup = Static<typeof Backup>
type SentDatabase = SentBackup['dbs'][string]

export const same: {
  backup: Same<
    Omit<SentBackup, 'dbs' | '_attachments'>,
    Omit<BackupSummary, 'dbs' | 'attachments' | 'content_sha256'>
  >
  database: Same<Omit<SentDatabase, 'docs'>, BackupSummary['dbs'][string]>
  notice: Same<Static<typeof Transaction>, WebhookNotice>
} = { backup: true, database: true, notice: true }

type Checked = Static<typeof Options>
type Group<Name extends keyof Checked> = NonNullable<Checked[Name]>
/** Options that are data. The others are checked one by one. */
type Data =
  | 'excludeTypes'
  | 'safety'
  | 'settingsDocuments'
  | 'onUnreadable'
  | 'keepFailed'
  | 'securitySchemes'
  | 'incremental'
  | 'schedule'
  | 'spoolDirectory'
  | 'limits'
  | 'timeouts'
  | 'retry'

export const sameOptions: {
  all: Same<keyof Checked, keyof (DbBackupsOptions & RegisterOptions)>
  data: Same<Pick<Checked, Data>, Pick<DbBackupsOptions, Data>>
  databases: Same<Static<typeof Names>, DatabaseNames>
  keep: Same<Static<typeof Rules>, KeepRules>
  metrics: Same<keyof Group<'metrics'>, keyof MetricsOptions>
  metricsPrefix: Same<Pick<Group<'metrics'>, 'prefix'>, Pick<MetricsOptions, 'prefix'>>
  clientWebhook: Same<Omit<Group<'clientWebhook'>, 'allow'>, Omit<ClientWebhookOptions, 'allow'>>
  clientWebhookMembers: Same<keyof Group<'clientWebhook'>, keyof ClientWebhookOptions>
  backups: Same<Omit<Group<'backups'>, 'couch'>, Omit<BackupsOptions, 'couch'>>
  backupsMembers: Same<keyof Group<'backups'>, keyof BackupsOptions>
  encryption: Same<Omit<Group<'encryption'>, 'key'>, Omit<Encryption, 'key'>>
  encryptionMembers: Same<keyof Group<'encryption'>, keyof Encryption>
} = {
  all: true,
  data: true,
  databases: true,
  keep: true,
  metrics: true,
  metricsPrefix: true,
  clientWebhook: true,
  clientWebhookMembers: true,
  backups: true,
  backupsMembers: true,
  encryption: true,
  encryptionMembers: true
}

type Argument<Method extends keyof DbBackups, Index extends number> = DbBackups[Method] extends (
  ...args: infer All
) => unknown
  ? NonNullable<All[Index]>
  : never
type Choices = 'only' | 'exclude' | 'skip' | 'exact'

export const sameArguments: {
  start: Same<Omit<Static<typeof Start>, 'requester'>, Omit<StartOptions, 'requester'>>
  startMembers: Same<keyof Static<typeof Start>, keyof StartOptions>
  restore: Same<
    Omit<Static<typeof Restore>, 'requester' | 'onChange'>,
    Omit<RestoreOptions, 'requester' | 'onChange'>
  >
  restoreMembers: Same<keyof Static<typeof Restore>, keyof RestoreOptions>
  prune: Same<Omit<Static<typeof Prune>, 'keep'>, Omit<PruneOptions, 'keep'>>
  pruneMembers: Same<keyof Static<typeof Prune>, keyof PruneOptions>
  copyMembers: Same<keyof Static<typeof Copy>, keyof CopyOptions>
  copyTo: Same<keyof Static<typeof Copy>['to'], keyof CopyOptions['to']>
  verify: Same<Omit<Static<typeof Verify>, 'signal'>, Omit<VerifyOptions, 'signal'>>
  verifyMembers: Same<keyof Static<typeof Verify>, keyof VerifyOptions>
  diff: Same<Omit<Static<typeof Diff>, 'signal'>, Omit<DiffOptions, 'signal'>>
  diffMembers: Same<keyof Static<typeof Diff>, keyof DiffOptions>
  cancel: Same<keyof Static<typeof Cancel>, keyof Argument<'cancel', 1>>
  restores: Same<Static<typeof RestoresAsked>, Argument<'restores', 0>>
  attach: Same<Static<typeof Attach>, Argument<'attach', 3>>
} = {
  start: true,
  startMembers: true,
  restore: true,
  restoreMembers: true,
  prune: true,
  pruneMembers: true,
  copyMembers: true,
  copyTo: true,
  verify: true,
  verifyMembers: true,
  diff: true,
  diffMembers: true,
  cancel: true,
  restores: true,
  attach: true
}

/** Routes of the operator plugin take what the methods take, or less. */
export const sameRequests: {
  start: Same<Static<typeof operator.StartBody>, Omit<StartOptions, 'requester'>>
  verify: Same<Static<typeof operator.VerifyBody>, Omit<VerifyOptions, 'signal'>>
  diff: Same<Static<typeof operator.DiffQuery>, Pick<DiffOptions, 'against' | 'values'>>
  preview: Same<Static<typeof operator.PreviewBody>, Pick<RestoreOptions, Choices>>
  restore: Same<Static<typeof operator.RestoreBody>, Pick<RestoreOptions, Choices | 'safety'>>
} = { start: true, verify: true, diff: true, preview: true, restore: true }
