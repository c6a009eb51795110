import { listChanges } from './change-list.mjs'
import { countsBar, countsTable, total } from './counts-table.mjs'
import { el } from './element.mjs'
import { count } from './format.mjs'

/** Shows the result of a dry run. If there is something to restore, asks the operator to type `word`. */
export function showPreview(form, transaction, { skip, scope, word, changes, stored }) {
  const { databases, settings_documents: settings } = transaction
  const writes = total(databases, 'created', 'changed')
  const deletions = total(databases, 'deleted')
  const nothing = writes + deletions === 0
  const find = (name) => form.querySelector(`[data-${name}]`)
  const skipped = Object.entries(skip).filter(([, ids]) => ids.length > 0)
  const held =
    scope !== '' || skipped.length > 0 ? 'the chosen documents of the backup' : 'what the backup has'
  find('preview').replaceChildren(
    ...(nothing
      ? [el('strong', {}, 'Nothing to restore'), `: the databases hold ${held}.`]
      : [
          el('strong', {}, `${count(writes, 'document')} would be written`),
          `: ${total(databases, 'created')} created, ${total(databases, 'changed')} overwritten. `,
          ...(deletions > 0
            ? [el('strong', {}, `${count(deletions, 'document')} would be deleted`), '. ']
            : []),
          'Nothing has been written yet.'
        ])
  )
  find('counts').replaceChildren(countsBar(databases), countsTable(databases, { planned: true }))
  find('skipped').textContent =
    skipped.length > 0
      ? `Left alone: ${skipped.map(([database, ids]) => `${ids.join(', ')} in ${database}`).join('; ')}`
      : ''
  find('scope').textContent = scope
  showUnknown(find('unknown'), [transaction.skip_unknown, transaction.only_unknown])
  showSettings(find('settings'), settings)
  find('confirm-label').replaceChildren('Type ', el('code', {}, word), ' to confirm')
  find('confirm').textContent = [
    ...(writes > 0 || nothing ? [`Restore ${count(writes, 'document')}`] : []),
    ...(deletions > 0 ? [`delete ${count(deletions, 'document')}`] : [])
  ]
    .join(', ')
    .replace(/^d/, 'D')
  for (const part of form.querySelectorAll(
    '[data-confirm], [data-confirm-label], #confirmation, #confirm-hint'
  )) {
    part.hidden = nothing
  }
  form.reset()
  showChanges(find, changes ?? transaction.changes ?? [], transaction.changes_count ?? 0)
  // For a file, the server's own settings say whether a backup is made first.
  find('safety').hidden = nothing || !stored
}

/** Lists the documents that would be written or deleted, and which of their members differ. */
function showChanges(find, changes, all) {
  find('changes-part').hidden = changes.length === 0
  listChanges(find('changes'), changes, all)
}

/** Warns about listed ids that no document has, which are usually mistyped. */
function showUnknown(part, lists) {
  const told = lists
    .flatMap((unknown = {}) => Object.entries(unknown))
    .map(
      ([database, { count: all, ids }]) =>
        `${ids.join(', ')}${all > ids.length ? ` and ${all - ids.length} more` : ''} in ${database}`
    )
  part.hidden = told.length === 0
  part.replaceChildren(
    el('strong', {}, 'No document has these ids: '),
    `${told.join('; ')}. Check how they are spelled.`
  )
}

/** Warns that settings would change. With another console's settings, this one would serve the other's databases. */
function showSettings(part, settings = []) {
  part.hidden = settings.length === 0
  part.replaceChildren(
    el('strong', {}, "This console's settings would change: "),
    `${settings.map(({ id, change }) => `${id} in system would be ${change}`).join('; ')}. Leave it alone unless the backup is of this console.`
  )
}
