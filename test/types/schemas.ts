// Compiled by `npm run lint`, never run: a type that differs from the schema of what is sent fails the compilation.
import type { Static } from '@sinclair/typebox'
import type { BackupSummary, WebhookNotice } from '../../lib/index.js'
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
  backup: Same<Omit<SentBackup, 'dbs' | '_attachments'>, Omit<BackupSummary, 'dbs' | 'attachments'>>
  database: Same<Omit<SentDatabase, 'docs'>, BackupSummary['dbs'][string]>
  notice: Same<Static<typeof Transaction>, WebhookNotice>
} = { backup: true, database: true, notice: true }
