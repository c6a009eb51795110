/** Makes an element. Text is never parsed as HTML. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue
    element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.filter((child) => child !== undefined && child !== null))
  return element
}

const MARKS = { complete: '✓', running: '●', failed: '✕', waiting: '○' }

/** A sign for the eye beside words that say the same. */
export const mark = (state) => el('span', { class: `mark ${state}`, 'aria-hidden': 'true' }, MARKS[state])

/** An item of a list of steps. */
export const stepItem = (state, ...content) =>
  el(
    'li',
    { class: state, 'aria-current': state === 'running' ? 'step' : undefined },
    mark(state),
    el('span', {}, ...content)
  )

/** Says something to screen readers, also while a dialog makes the rest of the page inert. */
export function announce(text) {
  const region =
    document.querySelector('dialog[open] [data-announcer]') ?? document.querySelector('main [data-announcer]')
  region.textContent = text
}
