import { BACKUP_PREFIX, isBackupId, isGoodBackup } from '../own-documents.js'
import { readHead } from './backup-head.js'
import type { Context } from './command.js'
import { CliError, EXIT, NoOperatorError, ReplyError, usageError } from './errors.js'

/** Stands for the newest good backup, wherever an id is taken. */
export const LATEST = 'latest'

/** @throws CliError for what is neither the id of a backup nor `latest` */
export function checkBackupId(id: string): void {
  if (id === LATEST || isBackupId(id)) return
  throw usageError(
    `"${id}" is not the id of a backup, such as ${BACKUP_PREFIX}1592924104038, nor "${LATEST}" for the newest good one`
  )
}

/** Returns an id as it is, and that of the newest good backup for `latest`. @throws CliError where there is none */
export async function resolveBackupId({ client, progress }: Context, id: string): Promise<string> {
  if (id !== LATEST) return id
  const found = (await newestOfOperator(client)) ?? (await newestOfList(client))
  if (found === null) throw new CliError('there is no good backup: "start" makes one', EXIT.notFound)
  progress.note(`${LATEST} is ${found}`)
  return found
}

/** Asks the operator's routes, which find it in one request. @returns `undefined` where there are none */
async function newestOfOperator(client: Context['client']): Promise<string | null | undefined> {
  const call = { operator: true, path: ['overview'], query: { limit: '1' } } as const
  try {
    const { newest_good: newest } = await client.json<{ newest_good?: { id: string } | null }>(call, {
      idempotent: true
    })
    return newest === undefined ? undefined : (newest?.id ?? null)
  } catch (error) {
    const isRefused = error instanceof ReplyError && error.exitCode === EXIT.auth
    if (isRefused || error instanceof NoOperatorError) return undefined
    throw error
  }
}

/** Looks at one backup after the other, newest first. */
async function newestOfList(client: Context['client']): Promise<string | null> {
  const { ids } = await client.json<{ ids: string[] }>({ path: ['backups'] }, { idempotent: true })
  for (const id of ids.reverse()) {
    try {
      if (isGoodBackup(await readHead(client, id))) return id
    } catch (error) {
      // It was removed meanwhile.
      if (!(error instanceof CliError) || error.exitCode !== EXIT.notFound) throw error
    }
  }
  return null
}
