import { callLines } from './api.mjs'
import { stateOf } from './backup-list.mjs'
import { changeItem, LISTED } from './change-list.mjs'
import { el } from './element.mjs'
import { dateTime, number } from './format.mjs'
import { inspection } from './inspection.mjs'
import { listItems } from './list-items.mjs'

const CHANGES = ['created', 'changed', 'deleted', 'unknown']

const open = inspection('comparison', {
  title: 'Compare a backup',
  submit: 'Compare',
  working: 'Comparing…',
  async look({ backup, form, signal }) {
    const query = new URLSearchParams({ against: form.elements.against.value })
    const counts = Object.fromEntries(CHANGES.map((change) => [change, 0]))
    const listed = []
    let all = 0
    for await (const line of callLines('GET', `/backups/${backup.id}/diff?${query}`, 'end', { signal })) {
      if (line.change === undefined) continue
      counts[line.change]++
      all++
      if (listed.length < LISTED) listed.push(line)
    }
    return { outcome: outcomeOf(counts, all), items: listItems(listed, all, changeItem) }
  }
})

/** Compares a backup with the databases, or with another one of those listed. Resolves when the dialog is closed. */
export const askAndCompare = (backup, backups) =>
  open(backup, (form) => {
    const others = backups.filter((other) => other.id !== backup.id && stateOf(other) === 'complete')
    form.elements.against.replaceChildren(
      el('option', { value: 'now' }, 'the databases as they are'),
      ...others.map(({ id, start_timestamp: at }) =>
        el('option', { value: id }, `the backup of ${dateTime(at)}`)
      )
    )
  })

function outcomeOf(counts, all) {
  const told = CHANGES.filter((change) => counts[change] > 0)
    .map((change) => `${number(counts[change])} ${change === 'unknown' ? 'could not be read' : change}`)
    .join(', ')
  return all === 0 ? 'They hold the same documents.' : `Since this backup: ${told}.`
}
