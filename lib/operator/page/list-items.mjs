import { el } from './element.mjs'
import { count } from './format.mjs'

/** Returns items for the first of `all`, and one that says how many are not among them. */
export function listItems(first, all, itemOf) {
  const rest = all - first.length
  return [...first.map(itemOf), ...(rest > 0 ? [el('li', {}, `and ${count(rest, 'other')}`)] : [])]
}
