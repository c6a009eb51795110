import { el } from './element.mjs'
import { count } from './format.mjs'
import { nameOf } from './names.mjs'

/** Documents that are listed. */
export const LISTED = 500

/**
 * Lists documents that differ, with the names of their members that do.
 * @param all how many there are, where only the first ones are given
 */
export function listChanges(list, changes, all = changes.length) {
  const listed = changes.slice(0, LISTED)
  const rest = Math.max(all, changes.length) - listed.length
  list.replaceChildren(
    ...listed.map(itemOf),
    ...(rest > 0 ? [el('li', {}, `and ${count(rest, 'other')}`)] : [])
  )
}

function itemOf({ database, id, change, fields = [], fields_truncated: more, reason }) {
  const members = fields.length > 0 ? `: ${fields.join(', ')}${more ? ' and more' : ''}` : ''
  const why = reason === undefined ? '' : `: ${reason}`
  return el('li', {}, el('code', {}, `${nameOf(database)}/${id}`), ` ${change}${members}${why}`)
}
