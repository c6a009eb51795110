import type { VerifyReport } from '../../../types/verify.js'
import { checkBackupId, LATEST, resolveBackupId } from '../backup-id.js'
import type { Command, Context, Outcome } from '../command.js'
import { CliError, EXIT, usageError } from '../errors.js'
import { count, duration, number } from '../format.js'
import { OperatorError, readLines } from '../operator.js'
import { quoted } from '../text.js'

const DEPTHS = ['structure', 'data', 'restore']

export const verify: Command = {
  summary: 'check that a backup is whole',
  usage: '<id> [--depth DEPTH]',
  help: `  --depth DEPTH    structure: counts and lists; data: also every byte (default);
                   restore: also a restore into databases of its own
  --from POSITION  go on where an interrupted verification of the same backup
                   and depth was, as its message tells

Ends with 1 when something is wrong, naming the parts and all backups that
share them. Needs the operator's routes.`,
  options: { depth: { type: 'string', default: 'data' }, from: { type: 'string' } },
  arguments: [1, 1],
  completes: { arguments: [LATEST], values: { depth: DEPTHS } },
  check([id], { depth }) {
    checkBackupId(id)
    if (!DEPTHS.includes(String(depth))) throw usageError(`--depth must be one of ${DEPTHS.join(', ')}`)
  },
  async run(context, [given], { depth, from }) {
    const id = await resolveBackupId(context, given)
    return reportOutcome(await read(context, id, String(depth), from as string | undefined))
  }
}

/** Verifies, and goes on from where the server was interrupted. @throws CliError that names that position */
async function read(
  { client, progress }: Context,
  id: string,
  depth: string,
  from: string | undefined
): Promise<VerifyReport> {
  const began = performance.now()
  let position = from
  let hasProgressed = false
  const attempt = async () => {
    const json = { depth, ...(position !== undefined && { from: position }) }
    const call = { method: 'POST', path: ['backups', id, 'verify'], json } as const
    try {
      const { report } = await readLines(client, call, 'report', () =>
        progress.state(`verifying ${id}: ${duration(performance.now() - began)}`)
      )
      return report as VerifyReport
    } catch (error) {
      if (!(error instanceof OperatorError) || error.position === undefined) throw error
      hasProgressed = error.position !== position
      position = error.position
      throw error
    }
  }
  try {
    progress.state(`verifying ${id}`)
    return await client.retry(attempt, undefined, () => hasProgressed)
  } catch (error) {
    if (!(error instanceof CliError) || position === undefined) throw error
    const told = `${error.message}; --from ${position} goes on where it was`
    throw new CliError(told, error.exitCode, { ...error.reply, position })
  }
}

function reportOutcome(report: VerifyReport): Outcome {
  const { good, complete } = report
  return {
    result: report,
    text: reportText(report),
    warning: complete ? null : 'warning: the verification ended early, since too much is damaged',
    exitCode: good ? EXIT.ok : EXIT.failed
  }
}

function reportText({
  id,
  depth,
  good,
  duration_ms: took,
  databases,
  problem_count,
  problems
}: VerifyReport) {
  const state = good ? 'good' : `damaged: ${count(problem_count, 'problem')}`
  const lines = [`${id} ${state} (${depth}, in ${duration(took)})`]
  for (const [database, { chunks, documents, restored }] of Object.entries(databases)) {
    const compared = restored === undefined ? '' : `, ${number(restored)} restored and compared`
    lines.push(`  ${database}: ${count(documents, 'document')} in ${count(chunks, 'chunk')}${compared}`)
  }
  for (const { database, part, id, reason, backups, documents } of problems) {
    lines.push(`  ${database} ${part} ${quoted(id)}: ${reason}`)
    if (documents) lines.push(`    documents: ${documents.map(quoted).join(', ')}`)
    if (backups.length > 1) lines.push(`    shared by: ${backups.slice(1).join(', ')}`)
  }
  if (problem_count > problems.length) lines.push(`  and ${number(problem_count - problems.length)} more`)
  return lines.join('\n')
}
