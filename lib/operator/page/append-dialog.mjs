import { backupUrl, callHost } from './api.mjs'
import { announce } from './element.mjs'
import { explain } from './explain.mjs'
import { age } from './format.mjs'
import { showFormError } from './notices.mjs'

/** Bytes of the largest file. As base 64 it takes 32 MiB, the server's limit. */
const MAX_FILE = 24 * 1024 ** 2

const dialog = document.getElementById('append')
const form = dialog.querySelector('form')
const name = document.getElementById('append-name')
const file = document.getElementById('append-file')
const text = document.getElementById('append-text')
const submit = form.querySelector('[type=submit]')
let backup
let done
/** Aborts the request when the dialog is closed. */
let sending

/**
 * Asks what to append to a backup, and appends it.
 * @returns the attachment's name, or `undefined` when the operator closed the dialog
 */
export function askAndAppend(to) {
  backup = to
  form.reset()
  showFormError(form, '')
  showKind()
  showHint()
  dialog.querySelector('[data-source]').textContent = `${to.id}, made ${age(to.start_timestamp)}`
  dialog.showModal()
  name.focus()
  return new Promise((resolve) => {
    done = resolve
  })
}

const kind = () => form.elements.kind.value

function showKind() {
  for (const part of form.querySelectorAll('[data-kind]')) part.hidden = part.dataset.kind !== kind()
}

function showHint() {
  const taken = backup.attachments.includes(name.value.trim())
  document.getElementById('append-name-hint').textContent = taken
    ? 'The backup has an attachment of this name. It will be replaced.'
    : 'For example apollo-settings. An attachment of the same name is replaced.'
}

form.addEventListener('change', showKind)
name.addEventListener('input', showHint)
file.addEventListener('change', () => {
  if (name.value === '' && file.files[0]) name.value = file.files[0].name
  showHint()
})
dialog.querySelector('[data-close]').addEventListener('click', () => dialog.close())
dialog.addEventListener('close', () => {
  sending?.abort()
  done(undefined)
})

form.addEventListener('submit', async (event) => {
  event.preventDefault()
  if (submit.ariaDisabled === 'true') return
  const chosen = file.files[0]
  const as = name.value.trim()
  if (as === '') return showFormError(form, 'Give the attachment a name.', name)
  if (kind() === 'file' && !chosen) return showFormError(form, 'Choose a file.', file)
  if (kind() === 'file' && chosen.size > MAX_FILE)
    return showFormError(form, 'The file is larger than 24 MiB.', file)
  if (kind() === 'text' && text.value === '') return showFormError(form, 'Enter the text.', text)
  showFormError(form, '')
  submit.ariaDisabled = 'true'
  announce('Appending.')
  sending = new AbortController()
  const { signal } = sending
  try {
    const attachment = kind() === 'file' ? await base64(chosen) : text.value
    await callHost('PUT', `${backupUrl(backup.id)}/attachments/${encodeURIComponent(as)}`, {
      body: { attachment },
      signal
    })
    done(as)
    dialog.close()
  } catch (error) {
    if (!signal.aborted) showFormError(form, explain(error))
  } finally {
    submit.ariaDisabled = null
  }
})

/** @throws an error with the code `FILE_UNREADABLE` */
function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.addEventListener('load', () => resolve(reader.result.slice(reader.result.indexOf(',') + 1)))
    reader.addEventListener('error', () =>
      reject(Object.assign(new Error('the file cannot be read'), { code: 'FILE_UNREADABLE' }))
    )
    reader.readAsDataURL(blob)
  })
}
