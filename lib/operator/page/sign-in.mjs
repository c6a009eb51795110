import { callHost, config } from './api.mjs'
import { el } from './element.mjs'
import { explain } from './explain.mjs'
import { showFormError } from './notices.mjs'

const section = document.getElementById('sign-in')
const form = document.getElementById('sign-in-form')
const email = document.getElementById('email')
const password = document.getElementById('password')
/** Shown where the page has no form of its own. */
const elsewhere = document.getElementById('sign-in-elsewhere')
const submit = form.querySelector('[type=submit]')

/**
 * Handles the sign-in form.
 * @param onSignedIn called after each sign-in; the form shows an error that it throws
 */
export function initSignIn(onSignedIn) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    if (submit.ariaDisabled === 'true') return
    if (email.value === '') return showFormError(form, 'Enter your email.', email)
    if (password.value === '') return showFormError(form, 'Enter your password.', password)
    showFormError(form, '')
    submit.ariaDisabled = 'true'
    try {
      const { path, password: member = 'password' } = config.signIn.login
      await callHost('POST', path, { body: { email: email.value, [member]: password.value } })
      form.reset()
      await onSignedIn()
    } catch (error) {
      if (error.status === 401) {
        password.value = ''
        showFormError(form, 'The email or the password is wrong.', password)
      } else showFormError(form, explain(error))
    } finally {
      submit.ariaDisabled = null
    }
  })
}

/** Shows the sign-in form, with the reason for signing in if there is one. */
export function showSignIn(reason) {
  if (reason) document.getElementById('sign-in-reason').textContent = reason
  section.hidden = false
  const { login, url } = config.signIn
  form.hidden = !login
  elsewhere.hidden = login !== undefined
  if (url) elsewhere.replaceChildren(el('a', { href: url }, 'Sign in'), ', then come back to this page.')
  if (login) email.focus()
  else document.getElementById('sign-in-title').focus()
}

export function hideSignIn() {
  section.hidden = true
  showFormError(form, '')
}
