import { stateOf } from './backup-list.mjs'
import { explain, RUNNING } from './explain.mjs'
import { setOff } from './why-off.mjs'

/**
 * Returns why no operation that writes can begin; `undefined` when one can.
 * @param state what runs, and the listed backups, since another server may be making one of them
 */
export function whyBusy({ running, backups, isStarting, isRestoring }) {
  const blocking = running.find(({ operation, lease }) => RUNNING[operation] && lease)
  if (blocking) return RUNNING[blocking.operation]
  if (isRestoring) return RUNNING.restore
  if (isStarting || backups.some(({ in_progress }) => in_progress)) return RUNNING.backup
  return undefined
}

/** Switches buttons that cannot work now off, with the reason, and the others on. */
export function showAvailability(state) {
  const { backups, pruningError } = state
  const find = (id) => document.getElementById(id)
  const busy = whyBusy(state)
  const wait = busy && `${busy} Wait until it has ended.`
  for (const id of ['start-backup', 'start-noted', 'restore-file']) setOff(find(id), wait)
  // Other failures may have passed: the dialog tries again.
  setOff(find('prune'), pruningError?.status === 400 ? explain(pruningError) : wait)
  for (const row of find('backups').tBodies[0].rows) {
    const backup = backups.find(({ id }) => id === row.dataset.id)
    if (!backup) continue
    for (const button of row.querySelectorAll('[data-action]'))
      setOff(button, whyOff(button.dataset.action, backup, { ...state, wait }))
  }
}

/** Returns why an action of a backup cannot work; `undefined` when it can. */
function whyOff(action, backup, { running, newestGood, wait }) {
  if (action === 'copy' || action === 'copy-checksum') return undefined
  const state = stateOf(backup)
  if (state === 'failed' && action !== 'remove') return 'The backup has failed, and holds no documents.'
  if (state === 'running' && action !== 'append') return 'The backup is still being made.'
  if (action === 'restore') return wait
  if (action === 'remove')
    return backup.id === newestGood?.id ? 'The newest good backup cannot be deleted.' : wait
  if (action !== 'verify') return undefined
  if (isOfAthena(backup))
    return 'Athena made this backup, without checksums. Preview a restore to check it: that reads all of it.'
  // A verification that holds the lease does not take the place of others.
  return running.some(({ operation, lease }) => operation === 'verify' && !lease)
    ? 'Another verification is running. Wait until it has ended.'
    : undefined
}

/** Only athena's complete backups have no checksum. */
const isOfAthena = ({ content_sha256: checksum }) => checksum === undefined
