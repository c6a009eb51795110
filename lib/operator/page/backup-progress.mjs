import { announce, stepItem } from './element.mjs'
import { count, duration } from './format.mjs'
import { followBackup } from './polling.mjs'

const panel = document.getElementById('running-backup')
const find = (name) => panel.querySelector(`[data-${name}]`)
const DATABASES = ['components', 'sessions', 'system']

/** Returns the key of a database in a backup. */
const keyOf = (database) => `athena_${database}`

/**
 * Shows the progress of a backup until it ends.
 * @returns its summary, whether it failed or not
 * @throws ApiError
 */
export async function showBackupProgress(id) {
  panel.hidden = false
  show({ dbs: {}, doc_count: 0, start_timestamp: Date.now(), in_progress: true })
  let said = ''
  try {
    return await followBackup(id, {
      onUpdate(backup) {
        show(backup)
        const at = current(backup)
        if (at && at !== said) announce(`Backing up ${at}.`)
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

function show(backup) {
  const at = current(backup)
  const done = DATABASES.filter((database) => backup.dbs[keyOf(database)])
  find('since').textContent = `for ${duration(Math.max(0, Date.now() - backup.start_timestamp))}`
  find('progress').textContent = `${count(backup.doc_count, 'document')} so far`
  panel.querySelector('progress').value = done.length
  find('steps').replaceChildren(
    ...DATABASES.map((database) => {
      const summary = backup.dbs[keyOf(database)]
      if (summary) return stepItem('complete', `${database}: ${count(summary.doc_count, 'document')}`)
      return database === at
        ? stepItem('running', `${database}: being read`)
        : stepItem('waiting', `${database}: waiting`)
    })
  )
}
