import { announce, stepItem } from './element.mjs'
import { count, duration } from './format.mjs'
import { DATABASES, nameOf } from './names.mjs'
import { followBackup } from './polling.mjs'
import { cancel, showCancel, showProgress } from './progress.mjs'

const panel = document.getElementById('running-backup')
const find = (name) => panel.querySelector(`[data-${name}]`)
/** Id of the backup that is shown. */
let shownId

/** Returns the key of a database in a backup. */
const keyOf = (database) => `athena_${database}`

/**
 * Shows the progress of a backup until it ends.
 * @returns its summary, whether it failed or not
 * @throws ApiError
 */
export async function showBackupProgress(id) {
  panel.hidden = false
  shownId = id
  show({ dbs: {}, doc_count: 0, start_timestamp: Date.now(), in_progress: true })
  let said = ''
  try {
    return await followBackup(id, {
      onUpdate(backup, running) {
        show(backup, running)
        showCancel(find('cancel'), find('cancel-hint'), running)
        const at = current(backup)
        if (at && at !== said) announce(`Backing up ${nameOf(at)}.`)
        said = at
      },
      onTrouble() {
        find('progress').textContent = 'The server does not answer. Trying again…'
      }
    })
  } finally {
    panel.hidden = true
  }
}

/** Returns the database that is being backed up. Databases are backed up one after another. */
const current = ({ dbs }) => DATABASES.find((database) => !dbs[keyOf(database)])

function show(backup, running) {
  const at = current(backup)
  find('since').textContent = `for ${duration(Math.max(0, Date.now() - backup.start_timestamp))}`
  const told = running?.progress ?? { documents: backup.doc_count }
  showProgress(panel.querySelector('progress'), find('progress'), told)
  find('steps').replaceChildren(
    ...DATABASES.map((database) => {
      const summary = backup.dbs[keyOf(database)]
      if (summary) return stepItem('complete', `${nameOf(database)}: ${count(summary.doc_count, 'document')}`)
      return database === at
        ? stepItem('running', `${nameOf(database)}: being read`)
        : stepItem('waiting', `${nameOf(database)}: waiting`)
    })
  )
}

find('cancel').addEventListener('click', () => cancel(find('cancel'), find('cancel-hint'), shownId))
