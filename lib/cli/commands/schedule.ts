import type { ScheduleState } from '../../../types/index.js'
import type { Command } from '../command.js'
import { age, ahead, minute } from '../format.js'
import { table } from '../text.js'

export const schedule: Command = {
  summary: 'show when backups are made, and how the last one went',
  usage: '',
  help: `Times are those of this machine. Needs the operator's routes.`,
  options: {},
  arguments: [0, 0],
  async run({ client }) {
    const call = { operator: true, path: ['schedule'] } as const
    const { schedule } = await client.json<{ schedule: ScheduleState | null }>(call, { idempotent: true })
    return { result: { schedule }, text: schedule ? scheduleText(schedule) : NONE }
  }
}

const NONE = 'the server makes no backups by itself: its option "schedule" is not set'

function scheduleText({ cron, timezone, next, last, verify }: ScheduleState): string {
  const rows = [
    ['next backup', nextText(next), `(${cron}, ${timezone})`],
    ['last backup', ...(last ? lastText(last) : ['none since the server started', ''])]
  ]
  if (last?.pruningError) rows.push(['', 'its pruning failed', last.pruningError])
  if (verify) {
    rows.push(['next verification', nextText(verify.next), `(${verify.cron}, ${verify.depth})`])
    if (verify.last) rows.push(['last verification', ...lastText(verify.last)])
  }
  return table(rows)
}

const nextText = (at: number) => `${minute(at)}, ${ahead(at)}`

interface Run {
  at: number
  result: string
  id?: string
  reason?: string
}

const lastText = ({ at, result, id, reason }: Run): string[] => [
  `${minute(at)}, ${age(at)}`,
  [result.replaceAll('_', ' '), id, reason].filter(Boolean).join(' ')
]
