import { beganAt } from './api.mjs'
import { announce } from './element.mjs'
import { explain } from './explain.mjs'
import { dateTime } from './format.mjs'
import { showFormError } from './notices.mjs'

/**
 * Returns a function that opens a dialog for a backup, and resolves when it is closed. Its form looks at the backup and
 * shows what it finds; to close the dialog ends that.
 * @param look is given what it needs, and shows the outcome
 */
export function inspection(id, { working, reset, look }) {
  const dialog = document.getElementById(id)
  const form = dialog.querySelector('form')
  const submit = form.querySelector('[type=submit]')
  const find = (name) => form.querySelector(`[data-${name}]`)
  let backup
  let stop

  form.addEventListener('submit', async (event) => {
    event.preventDefault()
    if (submit.ariaDisabled === 'true') return
    submit.ariaDisabled = 'true'
    reset(find)
    showFormError(form, '')
    find('outcome').textContent = working
    announce(working)
    stop = new AbortController()
    const { signal } = stop
    try {
      await look({ backup, form, find, signal })
      announce(find('outcome').textContent)
    } catch (error) {
      if (signal.aborted) return
      find('outcome').textContent = ''
      showFormError(form, explain(error))
    } finally {
      submit.ariaDisabled = null
    }
  })
  dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close())

  return async (asked, prepare) => {
    backup = asked
    form.reset()
    reset(find)
    showFormError(form, '')
    find('outcome').textContent = ''
    find('source').textContent = `The backup of ${dateTime(beganAt(backup.id))}, ${backup.id}`
    prepare?.(form)
    dialog.showModal()
    dialog.querySelector('h2').focus()
    await new Promise((resolve) => dialog.addEventListener('close', resolve, { once: true }))
    stop?.abort()
  }
}
