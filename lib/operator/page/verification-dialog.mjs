import { callLines } from './api.mjs'
import { el } from './element.mjs'
import { count, duration } from './format.mjs'
import { inspection } from './inspection.mjs'
import { nameOf } from './names.mjs'

/** Verifies a backup as far as the operator chooses. Resolves when the dialog is closed. */
export const askAndVerify = inspection('verification', {
  working: 'Verifying…',
  reset(find) {
    find('problems').hidden = true
  },
  async look({ backup, form, find, signal }) {
    const body = { depth: form.elements.depth.value }
    for await (const { report } of callLines('POST', `/backups/${backup.id}/verify`, 'report', {
      body,
      signal
    }))
      if (report) show(find, report)
  }
})

function show(find, { good, complete, databases, duration_ms: took, problems, problem_count: all }) {
  const documents = Object.values(databases).reduce((sum, database) => sum + database.documents, 0)
  const checked = `${count(documents, 'document')} in ${duration(took)}`
  const early = complete ? '' : ' It ended early, since too much is damaged.'
  find('outcome').replaceChildren(
    el(
      'strong',
      {},
      good ? 'Nothing is wrong' : `${count(all, 'part')} of it ${all === 1 ? 'is' : 'are'} damaged`
    ),
    `: ${checked}.${early}`
  )
  find('problems').hidden = problems.length === 0
  const rest = all - problems.length
  find('problems').replaceChildren(
    ...problems.map(itemOf),
    ...(rest > 0 ? [el('li', {}, `and ${count(rest, 'other')}`)] : [])
  )
}

function itemOf({ database, part, id, reason, documents = [], backups }) {
  const concerned = documents.length > 0 ? `: ${documents.join(', ')}` : ''
  const others = backups.length > 1 ? ` ${count(backups.length - 1, 'other backup')} share it.` : ''
  return el('li', {}, `${nameOf(database)}, ${part} `, el('code', {}, id), ` ${reason}${concerned}.${others}`)
}
