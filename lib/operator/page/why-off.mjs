import { announce, el } from './element.mjs'

const OFF = '[aria-disabled=true][aria-describedby]'
/** Shows why a button is off, beside the button, while that has the focus or the pointer. */
const tip = el('div', { class: 'tip', role: 'tooltip', popover: 'manual' })
document.querySelector('main').append(tip)
let numbered = 0
/** The button whose reason is shown. */
let shownFor

/** Switches a button off, with the reason, or on when there is no reason. A button that is off can have the focus. */
export function setOff(button, reason) {
  const told = toldOf(button)
  if (reason === undefined) {
    told?.remove()
    if (shownFor === button) hide()
    button.removeAttribute('aria-describedby')
    button.ariaDisabled = null
    return
  }
  if (!told) {
    const id = `why-${++numbered}`
    button.after(el('span', { id, hidden: true }, reason))
    button.setAttribute('aria-describedby', id)
  } else if (told.textContent !== reason) told.textContent = reason
  button.ariaDisabled = 'true'
}

/** Returns the element that says why a button is off. */
const toldOf = (button) => document.getElementById(button.getAttribute('aria-describedby'))

/** Tells whether a button that was pressed is off; if so, shows and announces why. */
export function isOff(button) {
  if (button.ariaDisabled !== 'true') return false
  const told = toldOf(button)
  if (told) {
    show(button)
    announce(told.textContent)
  }
  return true
}

function show(button) {
  tip.textContent = toldOf(button).textContent
  tip.hidePopover()
  tip.showPopover()
  place(button)
  shownFor = button
}

/** Places the reason below a button, or above it where there is no room. */
function place(button) {
  const { left, top, bottom } = button.getBoundingClientRect()
  const { clientWidth, clientHeight } = document.documentElement
  const fits = bottom + tip.offsetHeight <= clientHeight
  tip.style.left = `${Math.max(0, Math.min(left, clientWidth - tip.offsetWidth))}px`
  tip.style.top = `${fits ? bottom : Math.max(0, top - tip.offsetHeight)}px`
}

function hide() {
  tip.hidePopover()
  shownFor = undefined
}

/** Shows the reason of the button that has the pointer, or else the focus. */
function showReason({ target }) {
  if (tip.contains(target)) return
  const button = target.closest?.(OFF) ?? document.activeElement?.closest(`${OFF}:focus-visible`)
  if (button) show(button)
  else hide()
}

document.addEventListener('mouseover', showReason)
document.addEventListener('focusin', showReason)
document.addEventListener('focusout', hide)
document.addEventListener('scroll', () => (shownFor?.isConnected ? place(shownFor) : hide()), {
  capture: true,
  passive: true
})
document.addEventListener('keydown', ({ key }) => {
  if (key === 'Escape') hide()
})
