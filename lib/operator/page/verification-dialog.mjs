import { call, callLines } from './api.mjs'
import { el } from './element.mjs'
import { sentence } from './explain.mjs'
import { count, duration } from './format.mjs'
import { inspection } from './inspection.mjs'
import { listItems } from './list-items.mjs'
import { nameOf } from './names.mjs'

/** Milliseconds for which an interruption waits until the verification has begun. */
const PATIENCE = 2000
/** Milliseconds between two checks whether it has begun. */
const LOOK_INTERVAL = 50

/** Positions at which interrupted verifications go on, kept as long as the tab. */
const positions = {
  keyOf: ({ id }, depth) => `verification ${id} ${depth}`,
  of: (backup, depth) => sessionStorage.getItem(positions.keyOf(backup, depth)) ?? undefined,
  keep: (backup, depth, position) => sessionStorage.setItem(positions.keyOf(backup, depth), position),
  drop: (backup, depth) => sessionStorage.removeItem(positions.keyOf(backup, depth))
}

const dialog = document.getElementById('verification')
let shown

const open = inspection('verification', {
  title: 'Verify a backup',
  submit: 'Verify',
  working: 'Verifying…',
  async look({ backup, form, signal, begun }) {
    const depth = form.elements.depth.value
    try {
      return outcomeOf(await verify(backup, depth, { signal, begun }))
    } catch (error) {
      if (error.position === undefined) throw error
      positions.keep(backup, depth, error.position)
      return { outcome: `${sentence(error.message)} It can go on from there.` }
    } finally {
      if (shown?.id === backup.id) showSubmit()
    }
  },
  interrupt
})

/** Verifies a backup as far as the operator chooses. Resolves when the dialog is closed. */
export function askAndVerify(backup) {
  shown = backup
  return open(backup, showSubmit)
}

/**
 * Verifies a backup, from where an earlier verification was interrupted.
 * @param begun called with the id of the operation @returns the report
 * @throws ApiError, with the position where the verification was interrupted
 */
async function verify(backup, depth, { signal, begun }) {
  const body = { depth, from: positions.of(backup, depth) }
  let report
  try {
    for await (const line of callLines('POST', `/backups/${backup.id}/verify`, 'report', { body, signal })) {
      if (line.id !== undefined) begun(line.id)
      report = line.report
    }
  } catch (error) {
    if (isPositionRefused(error)) positions.drop(backup, depth)
    throw error
  }
  positions.drop(backup, depth)
  return report
}

/** Tells whether a position cannot be used: the backup has changed since, or the position is too long. */
const isPositionRefused = ({ status, message }) =>
  status === 413 || (status === 400 && /^(options|body)\/from/.test(message))

/** Has the server end a verification, which then sends its position. */
async function interrupt(run) {
  const until = Date.now() + PATIENCE
  while (run.id === undefined && !run.isOver && Date.now() < until)
    await new Promise((resolve) => setTimeout(resolve, LOOK_INTERVAL))
  if (run.isOver) return
  try {
    if (run.id !== undefined) return await call('POST', '/cancel', { body: { id: run.id } })
  } catch {
    // Another server runs it, or it has just ended.
  }
  run.abort.abort(new Error('The verification was ended. How far it came is not known.'))
}

/** Labels the button by whether a verification begins or goes on. */
function showSubmit() {
  const form = dialog.querySelector('form')
  const goesOn = positions.of(shown, form.elements.depth.value) !== undefined
  form.querySelector('[data-begin]').textContent = goesOn ? 'Go on' : 'Verify'
}

dialog.addEventListener('change', showSubmit)

function outcomeOf({ good, complete, databases, duration_ms: took, problems, problem_count: all }) {
  const documents = Object.values(databases).reduce((sum, database) => sum + database.documents, 0)
  const checked = `${count(documents, 'document')} in ${duration(took)}`
  const early = complete ? '' : ' It ended early, since too much is damaged.'
  const verdict = good
    ? 'Nothing is wrong'
    : `${count(all, 'part')} of it ${all === 1 ? 'is' : 'are'} damaged`
  return {
    outcome: [el('strong', {}, verdict), `: ${checked}.${early}`],
    items: listItems(problems, all, itemOf)
  }
}

function itemOf({ database, part, id, reason, documents = [], backups }) {
  const affected = documents.length > 0 ? `: ${documents.join(', ')}` : ''
  const others =
    backups.length > 1
      ? ` ${count(backups.length - 1, 'other backup')} ${backups.length === 2 ? 'shares' : 'share'} it.`
      : ''
  return el('li', {}, `${nameOf(database)}, ${part} `, el('code', {}, id), ` ${reason}${affected}.${others}`)
}
