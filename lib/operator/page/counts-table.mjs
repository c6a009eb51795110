import { el } from './element.mjs'
import { number } from './format.mjs'
import { nameOf } from './names.mjs'

const COLUMNS = [
  ['total', 'In backup', 'In backup'],
  ['created', 'Created', 'To create'],
  ['changed', 'Changed', 'To change'],
  ['unchanged', 'Unchanged', 'Unchanged'],
  ['skipped', 'Left alone', 'Left alone'],
  ['failed', 'Failed', 'Failed']
]

/** Returns a table of what a restore did to each database or, with `planned`, would do. */
export function countsTable(databases, { planned }) {
  const columns = COLUMNS.filter(
    ([member]) => member !== 'failed' || Object.values(databases).some(({ failed }) => failed > 0)
  )
  const heads = columns.map(([, was, willBe]) => (planned ? willBe : was))
  const head = (text, attributes = {}) =>
    el('th', { scope: 'col', role: 'columnheader', ...attributes }, text)
  return el(
    'table',
    {
      class: 'counts stacked',
      role: 'table',
      'aria-label': planned ? 'What would be done' : 'What was done'
    },
    el(
      'thead',
      { role: 'rowgroup' },
      el('tr', { role: 'row' }, head('Database'), ...heads.map((text) => head(text, { class: 'number' })))
    ),
    el(
      'tbody',
      { role: 'rowgroup' },
      ...Object.entries(databases).map(([database, counts]) =>
        el(
          'tr',
          { role: 'row' },
          el('th', { scope: 'row', role: 'rowheader' }, nameOf(database)),
          ...columns.map(([member], index) =>
            el(
              'td',
              {
                role: 'cell',
                class: counts[member] === 0 ? 'number zero' : 'number',
                'data-label': heads[index]
              },
              number(counts[member])
            )
          )
        )
      )
    )
  )
}

/** Returns the sum of one or more counts over all databases. */
export const total = (databases, ...members) =>
  Object.values(databases).reduce(
    (sum, counts) => sum + members.reduce((part, member) => part + counts[member], 0),
    0
  )
