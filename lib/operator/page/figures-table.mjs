import { el } from './element.mjs'

/**
 * Returns a table of figures, which narrow screens lay out as blocks.
 * @param label what it is, for those who cannot see it
 * @param heads of all columns
 * @param rows the cells of each row, the first of which names it; `undefined` for what is not known
 */
export function figuresTable(label, heads, rows) {
  const [first, ...others] = heads
  const head = (text, attributes) => el('th', { scope: 'col', role: 'columnheader', ...attributes }, text)
  const figure = (text = '–', index) => {
    const none = text === '0' || text === '–' ? ' zero' : ''
    return el('td', { role: 'cell', class: `number${none}`, 'data-label': others[index] }, text)
  }
  // Elements laid out as blocks would lose these roles.
  return el(
    'table',
    { class: 'counts stacked', role: 'table', 'aria-label': label },
    el(
      'thead',
      { role: 'rowgroup' },
      el('tr', { role: 'row' }, head(first), ...others.map((text) => head(text, { class: 'number' })))
    ),
    el(
      'tbody',
      { role: 'rowgroup' },
      ...rows.map(([name, ...figures]) =>
        el('tr', { role: 'row' }, el('th', { scope: 'row', role: 'rowheader' }, name), ...figures.map(figure))
      )
    )
  )
}
