import { call, callHost, config, keepToken, session } from './api.mjs'
import { askAndAppend } from './append-dialog.mjs'
import { showAvailability, whyBusy } from './availability.mjs'
import { ageOf, focusAction, showAges, showBackups, stateOf } from './backup-list.mjs'
import { showBackupProgress } from './backup-progress.mjs'
import { askAndCompare } from './comparison-dialog.mjs'
import { announce } from './element.mjs'
import { explain, sentence, unanswered } from './explain.mjs'
import { bytes, count, duration } from './format.mjs'
import { showHistory } from './history.mjs'
import { freedText } from './kept.mjs'
import { keepNames } from './names.mjs'
import { clearNotices, notify } from './notices.mjs'
import { showGlance, showPruning, showPruningUnknown, showSchedule } from './plan.mjs'
import { askAndPrune } from './prune-dialog.mjs'
import { askAndRemove } from './removal-dialog.mjs'
import {
  askAndRestore,
  askAndRestoreFile,
  followRestore,
  initRestoreDialog,
  showRunning
} from './restore-dialog.mjs'
import { outcomeOf } from './restore-progress.mjs'
import { hideSignIn, initSignIn, showSignIn } from './sign-in.mjs'
import { askHowToStart, forgetAnswers } from './start-dialog.mjs'
import { showTrends } from './trends.mjs'
import { askAndVerify } from './verification-dialog.mjs'
import { isOff } from './why-off.mjs'

/** How many backups are shown at first, and how many more with each request for older ones. */
const PAGE_SIZE = 25
/** Milliseconds between two checks for backups that others made. */
const CHECK_INTERVAL = 30_000
/** Milliseconds between two checks while buttons wait for an operation that the page does not follow. */
const BUSY_INTERVAL = 1000

const find = (id) => document.getElementById(id)
const start = find('start-backup')
let limit = PAGE_SIZE
let backups = []
/** What pruning would do; `undefined` while that is not known. */
let pruning
/** Why it is not known what pruning would do. */
let pruningError
/** The operations that the server runs. */
let running = []
let isStarting = false
let isRestoring = false
let schedule
let newestGood
/** Which start of the server answered last. */
let instance
/** Ids of the backups at the last check. */
let ids = ''
/** Id of the backup that is being followed. */
let followed
/** Id of the backup that the restore dialog was last opened for. Absent for a file. */
let restoring
let signedIn = false
let refreshes = 0
let checking

async function refresh() {
  const turn = ++refreshes
  const overview = await call('GET', `/overview?limit=${limit}`)
  // a later refresh shows newer data
  if (turn !== refreshes) return
  keepToken(overview)
  signedIn = true
  backups = overview.backups
  find('user').textContent = overview.user ?? ''
  find('account').hidden = false
  find('sign-out').hidden = !config.signIn.logout
  find('console').hidden = false
  hideSignIn()
  schedule = overview.schedule
  keepNames(overview)
  newestGood = overview.newest_good
  running = overview.running
  showList()
  showLatest()
  showTrends(backups, { hasOlder: backups.length < overview.total })
  showHistory(overview.restores)
  reportRestart(overview)
  showSchedule(schedule)
  showGlance(newestGood, schedule, pruning)
  refreshPruning(turn)
  find('more').hidden = backups.length >= overview.total
  checkAgain()
  const made = backups.find(({ in_progress }) => in_progress)
  if (made) followBackup(made.id)
  const restore = overview.running.find(({ operation, dry_run }) => operation === 'restore' && !dry_run)
  if (restore && !document.querySelector('dialog[open]')) followRestore(restore.id)
}

function showList() {
  showBackups(backups, pruning)
  showButtons()
}

/** Switches buttons off and on. */
const showButtons = () =>
  showAvailability({
    running,
    backups,
    newestGood,
    pruningError,
    isStarting: isStarting || followed !== undefined,
    isRestoring
  })

/** Shows until when backups are kept. The list does not wait for this, since the server reads all headers for it. */
async function refreshPruning(turn) {
  try {
    const told = await call('POST', '/prune', { body: { dryRun: true } })
    if (turn !== refreshes) return
    pruning = told
    pruningError = undefined
    showPruning(pruning)
    showList()
    showGlance(newestGood, schedule, pruning)
  } catch (error) {
    if (turn !== refreshes) return
    pruningError = error
    showPruningUnknown(explain(error))
    showButtons()
  }
}

/** Refreshes the page, and reports a failure. */
async function refreshOrReport() {
  try {
    await refresh()
  } catch (error) {
    reportUnreadList(error)
  }
}

function reportUnreadList(error) {
  if (error.status === 403) return showSignedOut(explain(error))
  if (error.status !== 401) find('console').hidden = false
  reportFailure('The backups could not be read.', error, retryButton())
}

/** Reports a failure. The sign-in form reports the end of a session (401). */
function reportFailure(title, error, ...buttons) {
  if (error.status !== 401) notify('failure', title, explain(error), ...buttons)
}

function retryButton() {
  const button = document.createElement('button')
  button.type = 'button'
  button.textContent = 'Try again'
  button.addEventListener('click', () => {
    clearNotices()
    refreshOrReport()
  })
  return button
}

/** Tells whether the only backup is still being made, so that nothing is wrong. */
const isFirstRunning = () => backups.length === 1 && backups[0].in_progress

/** Reports that a followed operation may have been interrupted, when the server was started again. */
function reportRestart(overview) {
  const isRestarted = instance !== undefined && instance !== overview.instance
  instance = overview.instance
  const isFollowing = followed !== undefined || !find('running-restore').hidden
  if (!isRestarted || !isFollowing || overview.running.length > 0) return
  notify(
    'failure',
    'The server was started again.',
    'What was running may have been interrupted. It is marked as failed within a minute, unless another server runs it.'
  )
}

function showLatest() {
  const latest = backups.find((backup) => stateOf(backup) === 'complete')
  const line = find('latest')
  if (latest)
    line.replaceChildren('Last complete backup: ', ageOf(latest.end_timestamp ?? latest.start_timestamp))
  else if (isFirstRunning()) line.textContent = 'The first backup is running.'
  else
    line.textContent = backups.length > 0 ? 'None of these backups is complete.' : 'Nothing is backed up yet.'
  line.classList.toggle('missing', !latest && !isFirstRunning())
}

/** @param options how to make the backup, if the operator was asked */
async function startBackup(options) {
  clearNotices()
  isStarting = true
  showButtons()
  try {
    const { id } = await call('POST', '/backups', { body: options ?? {} })
    if (options) forgetAnswers()
    announce('The backup has started.')
    followBackup(id)
    refreshOrReport()
  } catch (error) {
    if (unanswered(error)) return await reportUnanswered(error)
    reportFailure('No backup was started.', error)
    if (error.id && error.message === 'already_in_progress') followBackup(error.id)
    if (error.id && error.message === 'restore_in_progress') followRestore(error.id)
  } finally {
    isStarting = false
    showButtons()
  }
}

/** Reports that a backup may have started. If so, the list shows it once the server responds again. */
async function reportUnanswered(error) {
  reportFailure('It is not known whether a backup was started.', error)
  // the failure has just been reported
  await refresh().catch(() => undefined)
}

async function followBackup(id) {
  if (followed === id) return
  followed = id
  showButtons()
  try {
    const backup = await showBackupProgress(id)
    await refreshOrReport()
    reportEnd(backup)
  } catch (error) {
    reportFailure('The state of the backup could not be read.', error)
  } finally {
    followed = undefined
    showButtons()
    checkAgain()
  }
}

function reportEnd({ error, doc_count, start_timestamp, end_timestamp }) {
  if (error)
    notify(
      'failure',
      'The backup failed.',
      `${sentence(error)} It holds no documents; earlier backups are not affected. Remove the cause, then back up again.`
    )
  else {
    const took = duration(end_timestamp - start_timestamp)
    notify('success', 'The backup is complete.', `${count(doc_count, 'document')} in ${took}.`)
  }
}

initRestoreDialog({
  onRunning(isRunning) {
    find('running-restore').hidden = !isRunning
    if (isRestoring === isRunning) return
    isRestoring = isRunning
    showButtons()
  },
  onEnded(transaction, isShown) {
    refreshOrReport()
    if (isShown) return
    if (transaction.status === 'success') notify('success', 'The restore is done.', outcomeOf(transaction))
    else notify('failure', 'The restore ended with an error.', outcomeOf(transaction))
  },
  onFailed(error) {
    const known = !unanswered(error)
    reportFailure(
      known ? 'The restore was not started.' : 'It is not known whether the restore was started.',
      error
    )
  }
})

async function append(backup) {
  const name = await askAndAppend(backup)
  if (name) notify('success', 'Appended.', `The backup holds the attachment ${name}.`)
  await refreshOrReport()
  keepFocus(backup.id, 'append')
}

async function prune() {
  const outcome = await askAndPrune()
  if (!outcome) return
  const { removed, freed_bytes: freed } = outcome
  notify(
    'success',
    'Pruned.',
    `${count(removed.length, 'backup')} removed, ${bytes(freed)}. The database gives the space back when it compacts.`
  )
  await refreshOrReport()
}

async function remove(backup) {
  const outcome = await askAndRemove(backup)
  if (outcome) {
    notify('success', 'Deleted.', `The backup is deleted, which ${freedText(outcome.freed_bytes)}.`)
    await refreshOrReport()
  }
  keepFocus(backup.id, 'remove')
}

/** Has the operator inspect a backup in a dialog, and refreshes the list, which may show the outcome. */
async function inspect({ id }, action, ask) {
  await ask()
  await refreshOrReport()
  keepFocus(id, action)
}

/** Has the operator restore a file. No backup's button gets the focus afterwards. */
function restoreFile(dropped) {
  restoring = undefined
  askAndRestoreFile(dropped)
}

/** Copies a text to the clipboard, and says so. @param what the word for `text` */
async function copy(what, text) {
  try {
    await navigator.clipboard.writeText(text)
    announce(`Copied ${text}.`)
  } catch {
    // Browsers allow this only to pages from https or from localhost.
    notify('failure', `The ${what} was not copied.`, `The browser does not allow it. The ${what} is ${text}`)
  }
}

/** Focuses an action after its dialog, since the button that opened it may have been replaced or hidden. */
function keepFocus(id, action) {
  if (document.activeElement !== document.body) return
  focusAction(id, action)
  if (document.activeElement === document.body) find('title').focus()
}

/** Starts a download. Sends another request first, since the browser does not show why a download is refused. */
async function download(link) {
  try {
    await callHost('GET', config.backupsPath)
    const direct = link.cloneNode()
    direct.click()
    announce('The download has started.')
  } catch (error) {
    reportFailure('The backup was not downloaded.', error)
  }
}

function showSignedOut(reason) {
  signedIn = false
  running = []
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close()
  clearNotices()
  showBackups([])
  find('console').hidden = true
  find('account').hidden = true
  showSignIn(reason)
}

session.addEventListener('ended', () =>
  showSignedOut(
    signedIn ? 'Your session has ended. Running operations continue; sign in to see them.' : undefined
  )
)

initSignIn(async () => {
  await refresh()
  find('title').focus()
})

find('sign-out').addEventListener('click', async () => {
  try {
    const { path, method = 'POST' } = config.signIn.logout
    await callHost(method, path)
    showSignedOut('You have signed out.')
  } catch (error) {
    reportFailure('You are still signed in.', error)
  }
})
start.addEventListener('click', () => {
  if (!isOff(start)) startBackup()
})
find('start-noted').addEventListener('click', async (event) => {
  if (isOff(event.currentTarget)) return
  const options = await askHowToStart()
  if (options) startBackup(options)
})
find('prune').addEventListener('click', (event) => {
  if (isOff(event.currentTarget)) return
  clearNotices()
  prune()
})
find('restore-file').addEventListener('click', (event) => {
  if (isOff(event.currentTarget)) return
  clearNotices()
  restoreFile()
})
find('show-restore').addEventListener('click', showRunning)
find('more').addEventListener('click', async () => {
  const before = backups.length
  limit += PAGE_SIZE
  await refreshOrReport()
  announce(`${count(backups.length - before, 'older backup')} shown.`)
})
find('backups').addEventListener('click', (event) => {
  const pressed = event.target.closest('[data-action]')
  if (!pressed || isOff(pressed)) return
  const { action } = pressed.dataset
  const backup = backups.find(({ id }) => id === event.target.closest('tr').dataset.id)
  clearNotices()
  if (action === 'append') append(backup)
  if (action === 'remove') remove(backup)
  if (action === 'copy') copy('id', backup.id)
  if (action === 'copy-checksum') copy('checksum', backup.content_sha256)
  if (action === 'verify') inspect(backup, action, () => askAndVerify(backup))
  if (action === 'compare') inspect(backup, action, () => askAndCompare(backup, backups))
  if (action === 'restore') {
    restoring = backup.id
    askAndRestore(backup)
  }
  if (action === 'download') {
    event.preventDefault()
    download(pressed)
  }
})
find('restore').addEventListener('close', async () => {
  keepFocus(restoring, 'restore')
  await refreshOrReport()
  keepFocus(restoring, 'restore')
})

document.addEventListener('dragover', (event) => {
  if (event.target.type !== 'file') event.preventDefault()
})
document.addEventListener('drop', (event) => {
  if (event.target.type === 'file') return
  event.preventDefault()
  const [dropped] = event.dataTransfer.files
  if (dropped && signedIn && !document.querySelector('dialog[open]')) restoreFile(dropped)
})

/** Refreshes the page if others, or the schedule, have made backups since, or other operations run. */
async function checkForChanges() {
  showAges()
  if (!signedIn || document.hidden) return checkAgain()
  try {
    const seen = (await callHost('GET', config.backupsPath)).ids.join()
    const now = await call('GET', '/running')
    if (seen !== ids || schedule?.next <= Date.now() || isOther(now.running)) await refresh()
    ids = seen
  } catch (error) {
    reportUnreadList(error)
  }
  checkAgain()
}

/** Tells whether other operations run than at the last refresh. */
const isOther = (now) => now.map(({ id }) => id).join() !== running.map(({ id }) => id).join()

/** Schedules the next check for changes. */
function checkAgain() {
  clearTimeout(checking)
  const waits = followed === undefined && !isRestoring && whyBusy({ running, backups }) !== undefined
  checking = setTimeout(checkForChanges, waits ? BUSY_INTERVAL : CHECK_INTERVAL)
}

document.title = `${config.title}: backups`
find('brand').textContent = config.title
checkAgain()
document.addEventListener('visibilitychange', checkForChanges)
refreshOrReport()
