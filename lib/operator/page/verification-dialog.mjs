import { call, callLines } from './api.mjs'
import { el } from './element.mjs'
import { count, duration } from './format.mjs'
import { inspection } from './inspection.mjs'
import { listItems } from './list-items.mjs'
import { nameOf } from './names.mjs'

/** Milliseconds between two attempts to interrupt a verification that has not begun. */
const RETRY = 250

/** Where interrupted verifications go on. They last as long as the tab. */
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
  async look({ backup, form, signal }) {
    const depth = form.elements.depth.value
    try {
      return outcomeOf(await verify(backup, depth, signal))
    } catch (error) {
      if (error.position === undefined) throw error
      positions.keep(backup, depth, error.position)
      return { outcome: 'The verification was interrupted. It can go on from there.' }
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

/** @returns the report @throws ApiError, with the position where the verification was interrupted */
async function verify(backup, depth, signal) {
  const from = positions.of(backup, depth)
  positions.drop(backup, depth)
  const path = `/backups/${backup.id}/verify`
  let report
  try {
    for await (const line of callLines('POST', path, 'report', { body: { depth, from }, signal }))
      report = line.report
    return report
  } catch (error) {
    // Not where the backup has changed since.
    const isRefused = error.status === 400 && /options\/from/.test(error.message)
    if (from !== undefined && !isRefused) positions.keep(backup, depth, from)
    throw error
  }
}

/** Has the server end a verification: it tells the position then. */
async function interrupt({ id }, abort) {
  for (let attempt = 0; attempt < 8; attempt++) {
    try {
      const { running } = await call('GET', '/running')
      const own = running.find(({ operation, backup_id }) => operation === 'verify' && backup_id === id)
      if (own) return await call('POST', '/cancel', { body: { id: own.id } })
    } catch {
      break
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY))
  }
  // Another server runs it, or none does.
  abort.abort(new Error('The verification was ended. Where it can go on is not known.'))
}

/** Says whether a verification begins or goes on. */
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
  const concerned = documents.length > 0 ? `: ${documents.join(', ')}` : ''
  const others = backups.length > 1 ? ` ${count(backups.length - 1, 'other backup')} share it.` : ''
  return el('li', {}, `${nameOf(database)}, ${part} `, el('code', {}, id), ` ${reason}${concerned}.${others}`)
}
