const SVG = 'http://www.w3.org/2000/svg'

/** Creates an element. Text is never parsed as HTML. */
export const el = (tag, attributes, ...children) =>
  complete(document.createElement(tag), attributes, children)

/** Creates an element of a drawing. */
export const svg = (tag, attributes, ...children) =>
  complete(document.createElementNS(SVG, tag), attributes, children)

function complete(element, attributes = {}, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue
    element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.filter((child) => child !== undefined && child !== null))
  return element
}

const MARKS = { complete: '✓', running: '●', failed: '✕', waiting: '○' }

/** Returns a symbol of a state. It is hidden from screen readers, since the words beside it say the same. */
export const mark = (state) => el('span', { class: `mark ${state}`, 'aria-hidden': 'true' }, MARKS[state])

/** Returns an item of a list of steps. */
export const stepItem = (state, ...content) =>
  el(
    'li',
    { class: state, 'aria-current': state === 'running' ? 'step' : undefined },
    mark(state),
    el('span', {}, ...content)
  )

/** Announces a text to screen readers, even while a dialog makes the rest of the page inert. */
export function announce(text) {
  const region =
    document.querySelector('dialog[open] [data-announcer]') ?? document.querySelector('main [data-announcer]')
  region.textContent = text
}
