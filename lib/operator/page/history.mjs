import { beganAt } from './api.mjs'
import { el, mark } from './element.mjs'
import { dateTime } from './format.mjs'
import { outcomeOf } from './restore-progress.mjs'

const section = document.getElementById('history')
const STATES = {
  success: ['complete', 'Done'],
  error: ['failed', 'Failed'],
  pending: ['running', 'In progress']
}

/** Shows the latest restores. @param restores their transactions; `null` where they could not be listed */
export function showHistory(restores) {
  section.hidden = !restores || restores.length === 0
  section.querySelector('ul').replaceChildren(...(restores ?? []).map(itemOf))
}

function itemOf(transaction) {
  const { status, ts_started, backup_id: id, by, tx_id, safety_backup: safety } = transaction
  const [state, word] = STATES[status]
  const what = id ? `the backup of ${dateTime(beganAt(id))}` : 'a backup from a file'
  const before = safety
    ? ` The backup ${safety} was made before it: restored exactly, it takes this back.`
    : ''
  const outcome = status === 'pending' ? 'Not over, or interrupted by a restart.' : outcomeOf(transaction)
  return el(
    'li',
    {},
    el('span', { class: `badge ${state}` }, mark(state), word),
    el('span', { class: 'note' }, `${dateTime(ts_started)}: ${what}, by ${by}`),
    el('span', { class: 'fact' }, outcome + before),
    el('span', { class: 'fact' }, 'Transaction ', el('code', {}, tx_id))
  )
}
