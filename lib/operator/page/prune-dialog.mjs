import { beganAt, call } from './api.mjs'
import { announce, el } from './element.mjs'
import { explain, unanswered } from './explain.mjs'
import { count, dateTime } from './format.mjs'
import { freedText, reasonText } from './kept.mjs'
import { showFormError } from './notices.mjs'

/** What the operator has to type to confirm. */
const WORD = 'prune'

const dialog = document.getElementById('pruning')
const form = dialog.querySelector('form')
const confirmation = document.getElementById('pruning-confirmation')
const submit = form.querySelector('[type=submit]')
const find = (name) => form.querySelector(`[data-${name}]`)
let done

/**
 * Shows what pruning would remove, and prunes once the operator has typed the word.
 * @returns what was removed, or `undefined` when the operator closed the dialog first
 */
export function askAndPrune() {
  form.reset()
  showFormError(form, '')
  show('Reading all backups…', [])
  dialog.showModal()
  document.getElementById('pruning-title').focus()
  preview()
  return new Promise((resolve) => {
    done = resolve
  })
}

async function preview() {
  try {
    const { removed, kept, freed_bytes: freed } = await call('POST', '/prune', { body: { dryRun: true } })
    const rest = `${count(kept.length, 'backup')} ${kept.length === 1 ? 'stays' : 'stay'}.`
    if (removed.length === 0) show(`There is nothing to remove: ${rest}`, [])
    else
      show(
        `${count(removed.length, 'backup')} would be removed, which ${freedText(freed)}. ${rest} Nothing has been removed yet.`,
        removed
      )
    announce(find('preview').textContent)
  } catch (error) {
    show('', [])
    showFormError(form, explain(error))
  }
}

function show(text, removed) {
  find('preview').textContent = text
  find('removed').replaceChildren(
    ...(removed.length > 0
      ? [
          el(
            'ul',
            {},
            ...removed
              .toReversed()
              .map(({ id, reasons }) => el('li', {}, `${dateTime(beganAt(id))}: ${reasonText(reasons)}`))
          )
        ]
      : [])
  )
  find('confirming').hidden = removed.length === 0
  submit.hidden = removed.length === 0
  submit.textContent = `Remove ${count(removed.length, 'backup')}`
  find('confirm-label').replaceChildren('Type ', el('code', {}, WORD), ' to confirm')
}

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  if (submit.hidden || submit.ariaDisabled === 'true') return
  if (confirmation.value.trim() !== WORD)
    return showFormError(form, `Type ${WORD} to confirm that you want to remove backups.`, confirmation)
  showFormError(form, '')
  submit.ariaDisabled = 'true'
  announce('Removing backups.')
  try {
    done(await call('POST', '/prune', { body: {} }))
    dialog.close()
  } catch (error) {
    const more = unanswered(error) ? ' Backups may have been removed all the same.' : ''
    showFormError(form, explain(error) + more)
  } finally {
    submit.ariaDisabled = null
  }
})
dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close())
dialog.addEventListener('close', () => {
  find('confirm-label').textContent = 'Confirm'
  done(undefined)
})
