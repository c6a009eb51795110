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

/** Shows an error in a form, and marks the field that caused it. An empty text removes the error. */
export function showFormError(form, text, field) {
  form.querySelector('[data-message]').textContent = text
  for (const marked of form.querySelectorAll('[aria-invalid]')) marked.removeAttribute('aria-invalid')
  if (!field) return
  field.setAttribute('aria-invalid', 'true')
  field.focus()
}
