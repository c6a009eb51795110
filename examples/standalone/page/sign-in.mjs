import { call } from './api.mjs'
import { explain } from './explain.mjs'
import { complain } from './notices.mjs'

const section = document.getElementById('sign-in')
const form = document.getElementById('sign-in-form')
const email = document.getElementById('email')
const password = document.getElementById('password')
const submit = form.querySelector('[type=submit]')

/** @param onSignedIn called with every new session; what it returns is why the account is of no use, if it is */
export function initSignIn(onSignedIn) {
  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    if (submit.ariaDisabled === 'true') return
    if (email.value === '') return complain(form, 'Enter your email.', email)
    if (password.value === '') return complain(form, 'Enter your password.', password)
    complain(form, '')
    submit.ariaDisabled = 'true'
    try {
      await call('POST', '/auth/login', { body: { email: email.value, password: password.value } })
      form.reset()
      await onSignedIn()
    } catch (error) {
      if (error.status === 401) {
        password.value = ''
        complain(form, 'The email or the password is wrong.', password)
      } else complain(form, explain(error))
    } finally {
      submit.ariaDisabled = null
    }
  })
}

/** Shows the form in place of the page. */
export function showSignIn(reason) {
  if (reason) document.getElementById('sign-in-reason').textContent = reason
  section.hidden = false
  email.focus()
}

export function hideSignIn() {
  section.hidden = true
  complain(form, '')
}
