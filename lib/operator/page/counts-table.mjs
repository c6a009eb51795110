import { svg } from './element.mjs'
import { figuresTable } from './figures-table.mjs'
import { number } from './format.mjs'
import { nameOf } from './names.mjs'

const COLUMNS = [
  ['total', 'In backup', 'In backup'],
  ['created', 'Created', 'To create'],
  ['changed', 'Changed', 'To change'],
  ['unchanged', 'Unchanged', 'Unchanged'],
  ['skipped', 'Left alone', 'Left alone'],
  ['failed', 'Failed', 'Failed'],
  ['deleted', 'Deleted', 'To delete']
]
/** Columns that are left out where they say nothing. */
const RARE = ['failed', 'deleted']

/** Returns a table of what a restore did to each database or, with `planned`, would do. */
export function countsTable(databases, { planned }) {
  const columns = COLUMNS.filter(
    ([member]) => !RARE.includes(member) || Object.values(databases).some((counts) => counts[member] > 0)
  )
  return figuresTable(
    planned ? 'What would be done' : 'What was done',
    ['Database', ...columns.map(([, was, willBe]) => (planned ? willBe : was))],
    Object.entries(databases).map(([database, counts]) => [
      nameOf(database),
      ...columns.map(([member]) => number(counts[member]))
    ])
  )
}

/** Members of the counts that add up to `total`, as the bar shows them. */
const SHARES = ['created', 'changed', 'unchanged', 'skipped', 'failed']
/** Part of the bar that one document of many takes at least, so that it can be seen. */
const LEAST = 0.02

/** Returns a bar of what a restore does to the documents. The table tells the same in figures. */
export function countsBar(databases) {
  const counts = SHARES.map((member) => total(databases, member))
  const all = counts.reduce((sum, value) => sum + value, 0)
  const widths = counts.map((value) => (value > 0 ? Math.max(value, all * LEAST) : 0))
  let left = 0
  const shares = widths.map((width, i) => {
    const share = svg('rect', { x: left, width, height: 1, class: SHARES[i] })
    left += width
    return share
  })
  const box = { viewBox: `0 0 ${left || 1} 1`, preserveAspectRatio: 'none' }
  return svg('svg', { ...box, class: 'counts-bar', 'aria-hidden': 'true' }, ...shares)
}

/** Returns the sum of one or more counts over all databases. */
export const total = (databases, ...members) =>
  Object.values(databases).reduce(
    (sum, counts) => sum + members.reduce((part, member) => part + counts[member], 0),
    0
  )
