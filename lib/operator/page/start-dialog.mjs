const dialog = document.getElementById('start')
const form = dialog.querySelector('form')
const note = document.getElementById('start-note')
let done

/**
 * Asks how a backup is to be made. What was entered stays until {@link forgetAnswers}.
 * @returns the options of the backup, or `undefined` when the operator closed the dialog
 */
export function askHowToStart() {
  dialog.showModal()
  note.focus()
  return new Promise((resolve) => {
    done = resolve
  })
}

/** Empties the form, once a backup was started with its values. */
export const forgetAnswers = () => form.reset()

form.addEventListener('submit', (event) => {
  event.preventDefault()
  const text = note.value.trim()
  const { protect, full } = form.elements
  done({ ...(text !== '' && { note: text }), protect: protect.checked, full: full.checked })
  dialog.close()
})
dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close())
dialog.addEventListener('close', () => done(undefined))
