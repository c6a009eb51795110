import { beganAt, call } from './api.mjs'
import { announce, el } from './element.mjs'
import { explain, unanswered } from './explain.mjs'
import { dateTime } from './format.mjs'
import { showFormError } from './notices.mjs'

const dialog = document.getElementById('removal')
const form = dialog.querySelector('form')
const confirmation = document.getElementById('removal-confirmation')
const submit = form.querySelector('[type=submit]')
const find = (name) => form.querySelector(`[data-${name}]`)
let backup
let done

/** Returns what the operator has to type to confirm. */
const word = () => backup.id.slice(-6)

/**
 * Deletes a backup once the operator has typed the end of its id.
 * @returns what was removed, or `undefined` when the operator closed the dialog first
 */
export function askAndRemove(asked) {
  backup = asked
  form.reset()
  showFormError(form, '')
  find('source').textContent = `The backup of ${dateTime(beganAt(backup.id))}, ${backup.id}`
  find('word').replaceChildren('Type ', el('code', {}, word()), ' to confirm')
  dialog.showModal()
  document.getElementById('removal-title').focus()
  return new Promise((resolve) => {
    done = resolve
  })
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  if (submit.ariaDisabled === 'true') return
  if (confirmation.value.trim() !== word())
    return showFormError(form, `Type ${word()} to confirm that you want to delete the backup.`, confirmation)
  showFormError(form, '')
  submit.ariaDisabled = 'true'
  announce('Deleting the backup.')
  try {
    done(await call('DELETE', `/backups/${backup.id}`))
    dialog.close()
  } catch (error) {
    const more = unanswered(error) ? ' The backup may have been deleted all the same.' : ''
    showFormError(form, explain(error) + more)
  } finally {
    submit.ariaDisabled = null
  }
})
dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close())
dialog.addEventListener('close', () => {
  find('word').textContent = 'Confirm'
  done(undefined)
})
