import type { KeptBackup, PruneDecision, PruneOutcome } from '../../../types/backups.js'
import type { Command } from '../command.js'
import { bytes, count, minute } from '../format.js'
import { table } from '../text.js'

export const prune: Command = {
  summary: 'remove the backups that no rule keeps',
  usage: '[--dry-run]',
  help: `  -n, --dry-run    show what would be removed, and why, and remove nothing

The rules are those of the server's options keep and keepFailed. Needs the
operator's routes.`,
  options: { 'dry-run': { type: 'boolean', short: 'n' } },
  arguments: [0, 0],
  async run({ client, progress }, _args, { 'dry-run': dryRun = false }) {
    progress.state(dryRun ? 'looking at the backups' : 'pruning')
    const call = { method: 'POST', operator: true, path: ['prune'], json: { dryRun } } as const
    const outcome = await client.json<PruneOutcome>(call, { idempotent: dryRun === true })
    return { result: outcome, text: decisionsText(outcome) || null, note: summaryText(outcome) }
  }
}

function decisionsText({ dryRun, removed, kept }: PruneOutcome): string {
  const row = (verb: string, { id, reasons }: PruneDecision, until = '') => [
    verb,
    id,
    `${reasons.join(', ')}${until}`
  ]
  const gone = removed.map((backup) => row(dryRun ? 'remove' : 'removed', backup))
  return table([...gone, ...kept.map((backup) => row(dryRun ? 'keep' : 'kept', backup, untilText(backup)))])
}

const untilText = ({ until }: KeptBackup) => (until === undefined ? '' : `; until ${minute(until)}`)

function summaryText({ dryRun, removed, kept, freed_bytes: freed, orphans }: PruneOutcome): string {
  const would = dryRun ? 'would be ' : ''
  const parts = `${count(removed.length, 'backup')} ${would}removed, ${kept.length} kept; ${bytes(freed)} ${would}freed`
  const found = orphans.parts > 0 ? `; ${count(orphans.parts, 'part')} of no backup found` : ''
  return `${parts}${found}`
}
