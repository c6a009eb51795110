import { beganAt } from './api.mjs'
import { ageOf, aheadOf } from './backup-list.mjs'
import { sentence } from './explain.mjs'
import { count, dateTime, minute } from './format.mjs'
import { freedText, keptText } from './kept.mjs'

const find = (id) => document.getElementById(id)

const RESULTS = {
  made: () => 'Made',
  made_elsewhere: ({ id }) => `The backup of ${dateTime(beganAt(id))} was there already`,
  skipped: ({ id }) => `Skipped, since the backup of ${dateTime(beganAt(id))} was young enough`,
  failed: ({ reason }) => `Failed: ${sentence(reason)} The server tries again`
}

/** Shows when the next backup is made, and how the last run of the schedule went. */
export function showSchedule(schedule) {
  const next = find('next-run')
  if (schedule) next.replaceChildren(minute(schedule.next), ' (', aheadOf(schedule.next), ')')
  else next.textContent = 'When somebody starts it: there is no schedule'
  const last = find('last-run')
  for (const part of [last, last.previousElementSibling]) part.hidden = !schedule
  const run = schedule?.last
  last.classList.toggle('failed', run?.result === 'failed')
  if (run) last.replaceChildren(RESULTS[run.result](run), ' (', ageOf(run.at), ')')
  else last.textContent = 'None since the server has started'
}

/** Shows the newest good backup, until when it stays, and whether it was verified. */
export function showGlance(good, schedule, pruning) {
  const newest = find('newest-good')
  const kept = good && keptText(pruning, good)?.split(':')[0]
  if (good) newest.replaceChildren(ageOf(good.start_timestamp), kept ? `. ${kept}` : '')
  else newest.textContent = 'None'
  const last = find('last-verify')
  const verified = good?.verified
  const foundDamage = schedule?.verify?.last?.good === false
  last.classList.toggle('failed', verified?.good === false || foundDamage)
  if (verified)
    last.replaceChildren(
      verified.good ? 'Passed (' : 'Found damage (',
      ageOf(verified.at),
      `, ${verified.depth})`
    )
  else
    last.textContent = foundDamage
      ? 'Found damage in an earlier backup'
      : 'The newest good backup has not been verified'
}

/** Shows what pruning would remove. */
export function showPruning({ removed, freed_bytes: freed }) {
  find('next-pruning').textContent =
    removed.length > 0
      ? `Removes ${count(removed.length, 'backup')}, which ${freedText(freed)}`
      : 'Removes nothing: a rule keeps each backup'
}

/** Shows that it is not known what pruning would remove. */
export function showPruningUnknown(text) {
  find('next-pruning').textContent = `Not known. ${text}`
}
