import { bytes, day } from './format.mjs'

const YEAR = 365 * 24 * 3_600_000

const PERIODS = { hourly: 'hour', daily: 'day', weekly: 'week', monthly: 'month', yearly: 'year' }

/** Words for the reasons that pruning gives. Other reasons are shown as they are. */
const WORDS = [
  [/^newest good backup$/, () => 'the newest good one'],
  [/^last 1$/, () => 'the last one'],
  [/^last (\d+)$/, (number) => `one of the last ${number}`],
  [/^within (\w+)$/, (span) => `within ${span} of the newest`],
  [/^age 0 days$/, () => 'nearest to today'],
  [/^age (.+)$/, (age) => `nearest to ${age} ago`],
  [/^failed lately$/, () => 'it failed lately'],
  [/^damaged lately$/, () => 'it was found to be damaged lately']
]

/** Reasons that neither later backups nor time end. */
const FOR_GOOD = ['protected', 'made by athena']

/**
 * Tells until when a backup is kept, and by which rules.
 * @param pruning what pruning would do, if that is known
 */
export function keptText(pruning, { id, in_progress }) {
  if (!pruning || in_progress) return undefined
  const gone = pruning.removed.find((one) => one.id === id)
  if (gone) return `Goes with the next pruning: ${reasonText(gone.reasons)}`
  const kept = pruning.kept.find((one) => one.id === id)
  return kept && `${spanText(kept, pruning.foreseen)}: ${reasonText(kept.reasons)}`
}

function spanText({ until, reasons }, foreseen) {
  if (reasons.some((reason) => FOR_GOOD.includes(reason))) return 'Kept for good'
  if (until !== undefined) return `Kept until ${day(until)}`
  if (foreseen === undefined) return 'Kept'
  return foreseen - Date.now() >= YEAR ? 'Kept for more than a year' : `Kept beyond ${day(foreseen)}`
}

/** Tells what a removal frees, as the rest of a sentence after "which". */
export const freedText = (freed) =>
  freed > 0 ? `frees ${bytes(freed)}` : 'frees nothing, since other backups share its parts'

/** Puts reasons into words. Reasons by period become one. */
export function reasonText(reasons) {
  const periods = (pattern) =>
    reasons.map((reason) => PERIODS[pattern.exec(reason)?.[1]]).filter((period) => period)
  const newest = periods(/^(\w+ly) /)
  const oldest = periods(/^oldest (\w+)$/)
  const others = reasons.filter((reason) => !/^\w+ly |^oldest /.test(reason)).map(wordsOf)
  if (newest.length > 0) others.push(`newest of its ${together(newest)}`)
  if (oldest.length > 0)
    others.push(`oldest, until there are enough ${together(oldest.map((one) => `${one}s`))}`)
  return others.join('; ')
}

function wordsOf(reason) {
  for (const [pattern, words] of WORDS) {
    const match = pattern.exec(reason)
    if (match) return words(...match.slice(1))
  }
  return reason
}

/** `day`, `day and week`, `day, week and month` */
const together = (words) =>
  words.length > 1 ? `${words.slice(0, -1).join(', ')} and ${words.at(-1)}` : words[0]
