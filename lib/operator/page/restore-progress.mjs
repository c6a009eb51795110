import { countsTable, total } from './counts-table.mjs'
import { announce, el, mark, stepItem } from './element.mjs'
import { sentence } from './explain.mjs'
import { count, duration, number } from './format.mjs'
import { showCancel, showProgress } from './progress.mjs'

const TITLES = {
  pending: 'Step 3 of 3: restoring',
  success: 'The restore is done',
  error: 'The restore ended with an error'
}
let said

/**
 * Shows the progress of a restore, or its outcome.
 * @param running the operation, while the server that answers runs it
 */
export function showRestoreProgress(part, transaction, running) {
  const { status, athena_messages: messages, databases = {}, failures = [] } = transaction
  const find = (name) => part.querySelector(`[data-${name}]`)
  const ended = status !== 'pending'
  find('message').textContent = ''
  showTitle(find('running-title'), status)
  find('outcome').textContent = outcomeOf(transaction)
  const progress = part.querySelector('progress')
  progress.hidden = ended
  for (const name of ['progress', 'cancel', 'cancel-hint']) find(name).hidden = ended
  showProgress(progress, find('progress'), running?.progress)
  showCancel(find('cancel'), find('cancel-hint'), running)
  find('steps').replaceChildren(
    ...messages.map((message, index) => step(status, message, index === messages.length - 1))
  )
  // While the restore runs, its counts are not final.
  const known = ended && Object.keys(databases).length > 0
  find('counts').replaceChildren(...(known ? [countsTable(databases, { planned: false })] : []))
  find('failures').replaceChildren(...(failures.length > 0 ? [failuresOf(failures, databases)] : []))
  const saying = ended ? `${TITLES[status]}. ${outcomeOf(transaction)}` : (messages.at(-1) ?? '')
  if (saying !== said) announce(saying)
  said = saying
}

function showTitle(title, status) {
  const marks = { pending: [], success: [mark('complete')], error: [mark('failed')] }
  title.replaceChildren(...marks[status], TITLES[status])
}

/** Shows why the state of the restore cannot be read. */
export function showTrouble(part, text) {
  part.querySelector('[data-message]').textContent = text
}

/** Returns the outcome of a restore in a sentence or two. */
export function outcomeOf({
  status,
  databases = {},
  athena_messages: messages,
  ts_started,
  ts_completed,
  settings_documents: settings = []
}) {
  if (status === 'pending') return 'The restore continues if you close this window.'
  const deleted = total(databases, 'deleted')
  const written = `${count(total(databases, 'created', 'changed'), 'document')} written`
  const done = `${written}${deleted > 0 ? `, ${number(deleted)} deleted,` : ''} in ${duration(ts_completed - ts_started)}`
  const changed = settings.map(({ id, change }) => ` The settings in ${id} were ${change}.`).join('')
  if (status === 'success')
    return `${done}, ${number(total(databases, 'unchanged', 'skipped'))} left as they were.${changed}`
  const failed = total(databases, 'failed')
  if (failed === 0)
    return `${sentence(messages.at(-1) ?? 'unknown error')} ${done}. Remove the cause, then restore again.`
  return `${done}, ${number(failed)} failed. Remove the cause, then restore again: documents that are restored already are left alone.`
}

function step(status, message, last) {
  if (!last) return stepItem('complete', message)
  return stepItem({ pending: 'running', success: 'complete', error: 'failed' }[status], message)
}

function failuresOf(failures, databases) {
  const failed = total(databases, 'failed')
  return el(
    'section',
    { class: 'failures', 'aria-label': 'Documents that were not restored' },
    el(
      'h4',
      {},
      mark('failed'),
      failed > failures.length
        ? `The first ${failures.length} of ${number(failed)} that failed`
        : 'Not restored'
    ),
    el(
      'ul',
      {},
      ...failures.map(({ database, id, error, reason }) =>
        el('li', {}, el('code', {}, `${database}/${id}`), ` ${reason || error}`)
      )
    )
  )
}
