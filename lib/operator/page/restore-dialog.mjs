import { beganAt, call, callLines, config, skipQuery, upload } from './api.mjs'
import { LISTED } from './change-list.mjs'
import { total } from './counts-table.mjs'
import { announce } from './element.mjs'
import { explain, sentence, unanswered } from './explain.mjs'
import { age, bytes, count, dateTime, number } from './format.mjs'
import { showFormError } from './notices.mjs'
import { followTransaction } from './polling.mjs'
import { cancel } from './progress.mjs'
import { showPreview } from './restore-preview.mjs'
import { showRestoreProgress, showTrouble } from './restore-progress.mjs'
import {
  FieldError,
  fieldErrorOf,
  linesOf,
  readScope,
  resetScope,
  reveal,
  scopeText
} from './scope-fields.mjs'

const dialog = document.getElementById('restore')
const steps = Object.fromEntries(
  [...dialog.querySelectorAll('[data-step]')].map((part) => [part.dataset.step, part])
)
const file = document.getElementById('backup-file')
const safety = document.getElementById('safety')
const confirmation = document.getElementById('confirmation')
const skipLists = {
  components: document.getElementById('skip-components'),
  system: document.getElementById('skip-system')
}

/** The stored backup to restore. `undefined` when a file is restored. */
let backup
/** Aborts the request that the dialog waits for. */
let waiting = new AbortController()
/** Whether the server may have begun a restore, so that closing the dialog must not abort the request. */
let committed = false
/** Transaction of the restore that this page follows. */
let following
let listeners

/**
 * Sets the listeners of the dialog.
 * @param onRunning called with whether a restore runs
 * @param onEnded called with the transaction of a restore that has ended, and whether the dialog shows it
 * @param onFailed called with the error when a restore does not start and the dialog is closed
 */
export function initRestoreDialog({ onRunning, onEnded, onFailed }) {
  listeners = { onRunning, onEnded, onFailed }
}

/** Opens the dialog for a stored backup. */
export const askAndRestore = (stored) => open(stored)

/** Opens the dialog for a file: a dropped one, or one to be chosen. */
export function askAndRestoreFile(dropped) {
  open(undefined)
  if (!dropped || isBusy()) return
  const transfer = new DataTransfer()
  transfer.items.add(dropped)
  file.files = transfer.files
  showSource()
}

/** Shows the restore that is being followed. */
export function showRunning() {
  dialog.showModal()
  Object.values(steps)
    .find((part) => !part.hidden)
    .querySelector('h3')
    .focus()
}

const isBusy = () => following !== undefined || committed

function open(stored) {
  if (isBusy()) return showRunning()
  backup = stored
  for (const form of [steps.choose, steps.confirm]) form.reset()
  document.getElementById('file-field').hidden = backup !== undefined
  resetScope(backup !== undefined)
  showSource()
  showFormError(steps.choose, '')
  show('choose', { focus: false })
  dialog.showModal()
  ;(backup ? steps.choose.querySelector('h3') : file).focus()
}

function showSource() {
  const chosen = file.files[0]
  dialog.querySelector('[data-source]').textContent = backup
    ? `The backup of ${dateTime(backup.start_timestamp)} (${age(backup.start_timestamp)}, ${count(backup.doc_count, 'document')})`
    : chosen
      ? `The file ${chosen.name} (${bytes(chosen.size)})`
      : 'A downloaded backup'
}

function show(step, { focus = true } = {}) {
  for (const [name, part] of Object.entries(steps)) part.hidden = name !== step
  if (focus) steps[step].querySelector('h3').focus()
}

/** Shows what the dialog waits for, and which fraction of it is done, if that is known. */
function showWorking(title, text, fraction) {
  const { working } = steps
  working.querySelector('[data-close]').textContent = committed ? 'Close' : 'Cancel'
  working.querySelector('[data-working-title]').textContent = title
  working.querySelector('[data-working]').textContent = text
  const progress = working.querySelector('progress')
  if (fraction === undefined) progress.removeAttribute('value')
  else progress.value = fraction
  if (working.hidden) {
    show('working')
    announce(text)
  }
}

const skip = () =>
  Object.fromEntries(Object.entries(skipLists).map(([database, list]) => [database, linesOf(list)]))

/** Shows why a field cannot be used. */
function showFieldError({ field, message }) {
  reveal(field)
  showFormError(steps.choose, sentence(message), field)
}

/** Sends the whole file, and shows how far it has come. @param commits whether the server may write once it has it */
function send(path, { title, commits }) {
  const { signal } = waiting
  const [chosen] = file.files
  const onProgress = (sent) => {
    if (sent < chosen.size)
      return showWorking(
        title,
        `Sending the file: ${bytes(sent)} of ${bytes(chosen.size)}`,
        sent / chosen.size
      )
    committed = commits
    showWorking(title, 'The server is checking the file…')
  }
  onProgress(0)
  return upload(path, chosen, { signal, onProgress })
}

async function preview() {
  const title = 'Step 2 of 3: preview'
  waiting = new AbortController()
  const { signal } = waiting
  try {
    showOutcome(await (backup ? previewStored(title, signal) : previewFile(title, signal)))
  } catch (error) {
    if (signal.aborted) return
    show('choose')
    const ofField = fieldErrorOf(error)
    if (ofField) showFieldError(ofField)
    else
      showFormError(steps.choose, error.status === undefined ? failed('The preview', error) : explain(error))
  }
}

/** The documents that the operator chose, for the preview and for the restore after it. */
let scope = {}
/** The first differences that the preview of a stored backup found. */
let found

const COMPARING = 'Comparing the backup with the databases. Nothing is written.'

/** Compares a stored backup with the databases. @returns the outcome of the dry run */
async function previewStored(title, signal) {
  showWorking(title, COMPARING)
  let [changes, outcome] = [0]
  found = []
  const body = { skip: skip(), ...scope }
  for await (const line of callLines('POST', `/backups/${backup.id}/preview`, 'outcome', { body, signal })) {
    outcome = line.outcome
    if (outcome || line.running) continue
    changes++
    if (found.length < LISTED) found.push(line)
    showWorking(title, `${COMPARING} ${count(changes, 'difference')} so far.`)
  }
  return outcome
}

/** Sends a file to be compared with the databases. @returns the transaction of the dry run */
async function previewFile(title, signal) {
  const { tx_id } = await send(`api/preview${skipQuery(skip(), { repeated: true })}`, {
    title,
    commits: false
  })
  const transaction = await followTransaction(tx_id, {
    signal,
    onUpdate: ({ athena_messages: messages }) =>
      showWorking(title, messages.length > 0 ? sentence(messages.at(-1)) : COMPARING),
    onTrouble: () => showWorking(title, 'The server does not answer. Trying again…')
  })
  if (transaction.status === 'error') throw new Error(transaction.athena_messages.at(-1))
  return transaction
}

function showOutcome(transaction) {
  const { databases } = transaction
  showPreview(steps.confirm, transaction, {
    skip: skip(),
    scope: scopeText(scope),
    word: word(),
    changes: backup ? found : undefined,
    stored: backup !== undefined
  })
  showFormError(steps.confirm, '')
  show('confirm')
  announce(
    `The preview is done. ${count(total(databases, 'created', 'changed'), 'document')} would be written, ${number(total(databases, 'deleted'))} deleted.`
  )
}

const failed = (what, { message }) => `${what} failed: ${sentence(message)} Nothing was written.`

/** Returns what the operator has to type to confirm. */
const word = () => (backup ? backup.id.slice(-6) : 'restore')

async function restore() {
  const title = 'Step 3 of 3: restore'
  waiting = new AbortController()
  const { signal } = waiting
  let txId
  try {
    txId = await (backup ? restoreStored(title, signal) : restoreFile(title))
  } catch (error) {
    if (signal.aborted) return
    show('confirm', { focus: dialog.open })
    const more = unanswered(error)
      ? ' The restore may have started all the same. Reload the page to see whether one is running.'
      : ''
    showFormError(steps.confirm, explain(error) + more)
    if (!dialog.open) listeners.onFailed(error)
  } finally {
    committed = false
  }
  if (txId) await followRestore(txId)
}

/** @returns the id of the transaction */
async function restoreStored(title, signal) {
  committed = true
  showWorking(title, 'Starting the restore…')
  const { tx_id } = await call('POST', `/backups/${backup.id}/restore`, {
    body: { skip: skip(), ...scope, safety: safety.checked },
    signal
  })
  return tx_id
}

/** @returns the id of the transaction */
async function restoreFile(title) {
  const { url } = await send(config.backupsPath + skipQuery(skip()), { title, commits: true })
  return url.slice(url.lastIndexOf('/') + 1)
}

/** Follows a restore to its end, whether the dialog is open or not. Ignores dry runs, which are other operators'. */
export async function followRestore(txId) {
  if (following === txId) return
  following = txId
  const onUpdate = (state, running) => {
    if (state.dry_run) throw new DryRun()
    if (steps.running.hidden) show('running', { focus: dialog.open })
    listeners.onRunning(state.status === 'pending')
    showSourceOf(state)
    showRestoreProgress(steps.running, state, running)
  }
  const onTrouble = () => showTrouble(steps.running, 'The server does not answer. Trying again…')
  try {
    const transaction = await followTransaction(txId, { onUpdate, onTrouble })
    listeners.onEnded(transaction, dialog.open)
  } catch (error) {
    if (!(error instanceof DryRun))
      showTrouble(steps.running, `The state of the restore could not be read. ${explain(error)}`)
  } finally {
    following = undefined
    listeners.onRunning(false)
  }
}

class DryRun extends Error {}

/** Shows what is being restored, which may be another backup than the dialog was opened for. */
function showSourceOf({ backup_id: id, by }) {
  const what = id ? `The backup of ${dateTime(beganAt(id))}` : 'A backup from a file'
  dialog.querySelector('[data-source]').textContent = `${what}, restored by ${by}`
}

/** Begins the preview, unless the file's first bytes show that it is not a backup. */
async function checkAndPreview() {
  const problem = backup ? undefined : await problemOf(file.files[0])
  if (problem) return showFormError(steps.choose, problem, file)
  preview()
}

/** Returns why a file cannot be a backup, judged by its first bytes; `undefined` when it may be one. */
async function problemOf(chosen) {
  if (chosen.size === 0) return 'The file is empty. Choose one that “Download” has saved.'
  let head
  try {
    head = new Uint8Array(await chosen.slice(0, 64).arrayBuffer())
  } catch {
    // Sending the file reports why it cannot be read.
    return undefined
  }
  if (head[0] === 0x1f && head[1] === 0x8b)
    return 'The file is compressed (gzip). Decompress it first, or restore it by the command line.'
  const text = new TextDecoder()
    .decode(head)
    .replace(/^\ufeff/, '')
    .trimStart()
  if (text === '' || text.startsWith('{')) return undefined
  return 'This is not a backup: a backup file begins with “{”. Choose a file that “Download” has saved.'
}

steps.choose.addEventListener('submit', (event) => {
  event.preventDefault()
  if (!backup && !file.files[0]) return showFormError(steps.choose, 'Choose a backup file.', file)
  showFormError(steps.choose, '')
  try {
    scope = readScope()
  } catch (error) {
    if (!(error instanceof FieldError)) throw error
    return showFieldError(error)
  }
  checkAndPreview()
})
steps.confirm.addEventListener('submit', (event) => {
  event.preventDefault()
  if (confirmation.value.trim() !== word())
    return showFormError(steps.confirm, `Type ${word()} to confirm that you want to restore.`, confirmation)
  showFormError(steps.confirm, '')
  restore()
})
steps.confirm.querySelector('[data-back]').addEventListener('click', () => show('choose'))
file.addEventListener('change', showSource)
const cancelButton = steps.running.querySelector('[data-cancel]')
cancelButton.addEventListener('click', () =>
  cancel(cancelButton, steps.running.querySelector('[data-cancel-hint]'), following)
)
for (const button of dialog.querySelectorAll('[data-close]'))
  button.addEventListener('click', () => dialog.close())
dialog.addEventListener('close', () => {
  if (!committed) waiting.abort(new Error('closed'))
})
