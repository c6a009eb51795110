import { announce, el, mark } from './element.mjs'

const list = document.getElementById('notices')

/**
 * Shows the outcome of an operation in place of the earlier notice.
 * @param kind `success` or `failure`
 */
export function notify(kind, title, text = '', ...buttons) {
  const same = list.firstElementChild?.dataset
  if (same?.title === title && same.text === text) return
  const dismiss = el('button', { type: 'button', class: 'quiet' }, 'Dismiss')
  const notice = el(
    'div',
    {
      class: `notice ${kind}`,
      role: kind === 'failure' ? 'alert' : 'group',
      'aria-label': title,
      'data-title': title,
      'data-text': text
    },
    mark(kind === 'failure' ? 'failed' : 'complete'),
    el('div', { class: 'notice-text' }, el('strong', {}, title), text && el('p', {}, text)),
    el('div', { class: 'buttons' }, ...buttons, dismiss)
  )
  dismiss.addEventListener('click', () => {
    clearNotices()
    document.getElementById('title').focus()
  })
  list.replaceChildren(notice)
  if (kind === 'success') announce(`${title} ${text}`)
}

export const clearNotices = () => list.replaceChildren()

/** Shows an error in a form: beside the field that caused it, or below all fields. An empty text removes the error. */
export function showFormError(form, text, field) {
  for (const marked of form.querySelectorAll('[aria-invalid]')) unmark(marked)
  form.querySelector('[data-message]').textContent = field ? '' : text
  if (!field) return
  const id = `${field.id}-error`
  field.after(el('p', { id, class: 'message beside', role: 'alert' }, text))
  field.setAttribute('aria-invalid', 'true')
  field.setAttribute('aria-describedby', [...describing(field), id].join(' '))
  field.focus()
}

function unmark(field) {
  const id = `${field.id}-error`
  document.getElementById(id)?.remove()
  field.removeAttribute('aria-invalid')
  const others = describing(field).filter((one) => one !== id)
  if (others.length > 0) field.setAttribute('aria-describedby', others.join(' '))
  else field.removeAttribute('aria-describedby')
}

/** Returns the ids of what describes a field. */
const describing = (field) => (field.getAttribute('aria-describedby') ?? '').split(' ').filter(Boolean)
