import { call, session } from './api.mjs'
import { askAndAppend } from './append-dialog.mjs'
import { ageOf, focusAction, showAges, showBackups, stateOf } from './backup-list.mjs'
import { showBackupProgress } from './backup-progress.mjs'
import { announce } from './element.mjs'
import { explain, sentence, unanswered } from './explain.mjs'
import { count, duration } from './format.mjs'
import { clearNotices, notify } from './notices.mjs'
import {
  askAndRestore,
  askAndRestoreFile,
  followRestore,
  initRestoreDialog,
  showRunning
} from './restore-dialog.mjs'
import { outcomeOf } from './restore-progress.mjs'
import { hideSignIn, initSignIn, showSignIn } from './sign-in.mjs'

/** Backups shown, and shown more with each request for older ones. */
const PAGE = 25
/** Milliseconds between two looks for what others have done. */
const LOOK = 30_000

const find = (id) => document.getElementById(id)
const start = find('start-backup')
let limit = PAGE
let backups = []
let ids = ''
/** Id of the backup that is being followed. */
let followed
/** Id of the backup that the restore dialog was opened for last. */
let restoring
let signedIn = false
let refreshes = 0

async function refresh() {
  const turn = ++refreshes
  const overview = await call('GET', `/operator/overview?limit=${limit}`)
  // a later one shows what is newer
  if (turn !== refreshes) return
  signedIn = true
  backups = overview.backups
  find('user').textContent = overview.user ?? ''
  find('account').hidden = false
  find('console').hidden = false
  hideSignIn()
  showBackups(backups)
  showLatest()
  find('more').hidden = backups.length >= overview.total
  const running = backups.find(({ in_progress }) => in_progress)
  if (running) followBackup(running.id)
  if (overview.restore && !document.querySelector('dialog[open]')) followRestore(overview.restore)
}

/** Refreshes, and tells when that fails. */
async function refreshOrTell() {
  try {
    await refresh()
  } catch (error) {
    tellUnread(error)
  }
}

function tellUnread(error) {
  if (error.status === 403) return showSignedOut(explain(error))
  if (error.status !== 401) find('console').hidden = false
  tellFailure('The backups could not be read.', error, retryButton())
}

/** Says what did not work. The end of the session has a place of its own. */
function tellFailure(title, error, ...buttons) {
  if (error.status !== 401) notify('failure', title, explain(error), ...buttons)
}

function retryButton() {
  const button = document.createElement('button')
  button.type = 'button'
  button.textContent = 'Try again'
  button.addEventListener('click', () => {
    clearNotices()
    refreshOrTell()
  })
  return button
}

function showLatest() {
  const latest = backups.find((backup) => stateOf(backup) === 'complete')
  const line = find('latest')
  if (latest)
    line.replaceChildren('Last complete backup: ', ageOf(latest.end_timestamp ?? latest.start_timestamp))
  else
    line.textContent = backups.length > 0 ? 'None of these backups is complete.' : 'Nothing is backed up yet.'
  line.classList.toggle('missing', !latest)
}

async function startBackup() {
  if (start.ariaDisabled === 'true') return announce('A backup is in progress.')
  clearNotices()
  start.ariaDisabled = 'true'
  try {
    const { id } = await call('POST', '/backups')
    announce('The backup has started.')
    followBackup(id)
    refreshOrTell()
  } catch (error) {
    start.ariaDisabled = null
    if (unanswered(error)) return tellUnanswered(error)
    tellFailure('No backup was started.', error)
    if (error.id && error.message === 'already_in_progress') followBackup(error.id)
    if (error.id && error.message === 'restore_in_progress') followRestore(error.id)
  }
}

/** If the backup was started, the list has it as soon as the server answers again. */
async function tellUnanswered(error) {
  tellFailure('It is not known whether a backup was started.', error)
  // Why not has just been told.
  await refresh().catch(() => undefined)
}

async function followBackup(id) {
  if (followed === id) return
  followed = id
  start.ariaDisabled = 'true'
  try {
    const backup = await showBackupProgress(id)
    await refreshOrTell()
    tellEnd(backup)
  } catch (error) {
    tellFailure('How the backup is going cannot be read.', error)
  } finally {
    followed = undefined
    start.ariaDisabled = null
  }
}

function tellEnd({ error, doc_count, start_timestamp, end_timestamp }) {
  if (error)
    notify(
      'failure',
      'The backup failed.',
      `${sentence(error)} Nothing of it is kept; earlier backups are not affected. When the cause is gone, back up again.`
    )
  else {
    const took = duration(end_timestamp - start_timestamp)
    notify('success', 'The backup is complete.', `${count(doc_count, 'document')} in ${took}.`)
  }
}

initRestoreDialog({
  onRunning(running) {
    find('running-restore').hidden = !running
  },
  onEnded(transaction, isShown) {
    if (isShown) return
    if (transaction.status === 'success') notify('success', 'The restore is done.', outcomeOf(transaction))
    else notify('failure', 'The restore ended with an error.', outcomeOf(transaction))
  },
  onFailed(error) {
    const known = !unanswered(error)
    tellFailure(
      known ? 'The restore was not started.' : 'It is not known whether the restore was started.',
      error
    )
  }
})

async function append(backup) {
  const name = await askAndAppend(backup)
  if (name) notify('success', 'Appended.', `The backup holds the attachment ${name}.`)
  await refreshOrTell()
  keepFocus(backup.id, 'append')
}

/** A dialog gives the focus back to what opened it, which may have been replaced or hidden since. */
function keepFocus(id, action) {
  if (document.activeElement !== document.body) return
  focusAction(id, action)
  if (document.activeElement === document.body) find('title').focus()
}

/** The browser shows no reason why a download is refused: ask for one first. */
async function download(link) {
  try {
    await call('GET', '/backups')
    const direct = link.cloneNode()
    direct.click()
    announce('The download has started.')
  } catch (error) {
    tellFailure('The backup was not downloaded.', error)
  }
}

function showSignedOut(reason) {
  signedIn = false
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close()
  clearNotices()
  showBackups([])
  find('console').hidden = true
  find('account').hidden = true
  showSignIn(reason)
}

session.addEventListener('ended', () =>
  showSignedOut(signedIn ? 'Your session has ended. What was started goes on; sign in to see it.' : undefined)
)

initSignIn(async () => {
  await refresh()
  find('title').focus()
})

find('sign-out').addEventListener('click', async () => {
  try {
    await call('POST', '/auth/logout')
    showSignedOut('You have signed out.')
  } catch (error) {
    tellFailure('You are still signed in.', error)
  }
})
start.addEventListener('click', startBackup)
find('restore-file').addEventListener('click', () => {
  clearNotices()
  askAndRestoreFile()
})
find('show-restore').addEventListener('click', showRunning)
find('more').addEventListener('click', async () => {
  const before = backups.length
  limit += PAGE
  await refreshOrTell()
  announce(`${count(backups.length - before, 'older backup')} shown.`)
})
find('backups').addEventListener('click', (event) => {
  const { action } = event.target.closest('[data-action]')?.dataset ?? {}
  if (!action) return
  const backup = backups.find(({ id }) => id === event.target.closest('tr').dataset.id)
  clearNotices()
  if (action === 'append') append(backup)
  if (action === 'restore') {
    restoring = backup.id
    askAndRestore(backup)
  }
  if (action === 'download') {
    event.preventDefault()
    download(event.target.closest('a'))
  }
})
find('restore').addEventListener('close', async () => {
  await refreshOrTell()
  keepFocus(restoring, 'restore')
})

document.addEventListener('dragover', (event) => {
  if (event.target.type !== 'file') event.preventDefault()
})
document.addEventListener('drop', (event) => {
  if (event.target.type === 'file') return
  event.preventDefault()
  const [dropped] = event.dataTransfer.files
  if (dropped && signedIn && !document.querySelector('dialog[open]')) askAndRestoreFile(dropped)
})

/** Others may have made backups. */
async function look() {
  showAges()
  if (!signedIn || document.hidden) return
  try {
    const seen = (await call('GET', '/backups')).ids.join()
    if (seen !== ids) await refresh()
    ids = seen
  } catch (error) {
    tellUnread(error)
  }
}

setInterval(look, LOOK)
document.addEventListener('visibilitychange', look)
refreshOrTell()
