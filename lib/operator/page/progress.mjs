import { call } from './api.mjs'
import { announce } from './element.mjs'
import { explain } from './explain.mjs'
import { bytes, count, number } from './format.mjs'

const ELSEWHERE =
  'The server that answers does not run it. Another one does, or it was interrupted by a restart: then it is marked as failed within a minute.'

/** Shows how far an operation has come, in documents and bytes, and of how many if that is known. */
export function showProgress(bar, text, progress = {}) {
  const { documents = 0, bytes: done = 0, expected_documents: all, expected_bytes: size } = progress
  // The bar is full only when the operation has ended.
  if (all > 0) bar.value = Math.min(0.99, documents / all)
  else bar.removeAttribute('value')
  const of = all > 0 ? ` of about ${number(all)}` : ''
  const amount = size > 0 ? `${bytes(done)} of about ${bytes(size)}` : bytes(done)
  text.textContent = `${count(documents, 'document')} so far${of}${done > 0 ? `, ${amount}` : ''}`
}

/** Switches the button that cancels an operation off when it cannot, and says why. */
export function showCancel(button, hint, running) {
  button.ariaDisabled = !running || running.cancelling ? 'true' : null
  hint.textContent = running ? (running.cancelling ? 'Cancelling…' : '') : ELSEWHERE
}

/** Cancels an operation. @param id of the operation, or `undefined` when there is none */
export async function cancel(button, hint, id) {
  if (button.ariaDisabled === 'true' || id === undefined) return announce(hint.textContent)
  button.ariaDisabled = 'true'
  try {
    await call('POST', '/cancel', { body: { id } })
    hint.textContent = 'Cancelling…'
    announce('Cancelling.')
  } catch (error) {
    button.ariaDisabled = null
    hint.textContent = error.status === 404 ? 'It has ended already.' : explain(error)
    announce(hint.textContent)
  }
}
