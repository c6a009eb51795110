import { el } from './element.mjs'
import { listItems } from './list-items.mjs'
import { nameOf } from './names.mjs'

/** How many documents are listed at most. */
export const LISTED = 500

/**
 * Lists documents that differ, with the names of the members that differ.
 * @param all how many there are, where only the first ones are given
 */
export function listChanges(list, changes, all = changes.length) {
  list.replaceChildren(...listItems(changes.slice(0, LISTED), Math.max(all, changes.length), changeItem))
}

/** Returns an item that tells of a document that differs. */
export function changeItem({ database, id, change, fields = [], fields_truncated: more, reason }) {
  const members = fields.length > 0 ? `: ${fields.join(', ')}${more ? ' and more' : ''}` : ''
  const why = reason === undefined ? '' : `: ${reason}`
  return el('li', {}, el('code', {}, `${nameOf(database)}/${id}`), ` ${change}${members}${why}`)
}
