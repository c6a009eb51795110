import { ageOf, aheadOf } from './backup-list.mjs'
import { sentence } from './explain.mjs'
import { bytes, count, dateTime } from './format.mjs'

const find = (id) => document.getElementById(id)

const RESULTS = {
  made: () => 'made',
  made_elsewhere: () => 'made by another server',
  skipped: () => 'skipped, since a backup was young enough',
  failed: ({ reason }) => `failed. ${sentence(reason)} It is tried again.`
}

/** Shows when the next backup is made, and how the last run of the schedule went. */
export function showSchedule(schedule) {
  const next = find('next-run')
  if (schedule) next.replaceChildren(dateTime(schedule.next), ' (', aheadOf(schedule.next), ')')
  else next.textContent = 'When somebody starts it: there is no schedule'
  const last = find('last-run')
  last.parentElement.hidden = !schedule
  const run = schedule?.last
  last.classList.toggle('failed', run?.result === 'failed')
  if (run) last.replaceChildren(ageOf(run.at), ': ', RESULTS[run.result](run))
  else last.textContent = 'None since the server has started'
}

/** Shows what pruning would remove. */
export function showPruning({ removed, freed_bytes: freed }) {
  find('next-pruning').textContent =
    removed.length > 0
      ? `Removes ${count(removed.length, 'backup')}, ${bytes(freed)}`
      : 'Removes nothing: a rule keeps each backup'
}

/** Shows that it is not known what pruning would remove. */
export function showPruningUnknown(text) {
  find('next-pruning').textContent = `Not known. ${text}`
}
