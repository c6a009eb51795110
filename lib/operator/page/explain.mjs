const WAIT = 'Wait until it has ended, then try again.'

/** Says that an operation is running, by its kind, for the kinds that others must wait for. */
export const RUNNING = {
  backup: 'A backup is running.',
  restore: 'A restore or a preview of one is running.',
  prune: 'Backups are being removed.',
  rekey: 'Backups are being sealed anew.',
  verify: 'A verification is running.',
  copy: 'A backup is being copied to this database.'
}

/** Explains an error to the operator: what happened, and what to do about it. */
export function explain(error) {
  const { status, code, message } = error
  if (code === 'FILE_UNREADABLE')
    return 'The file can no longer be read: it was changed or moved after it was chosen. Choose it again.'
  if (status === 0)
    return 'The server does not answer. Check that it is running and that you are connected, then try again.'
  if (code === 'NOT_JSON')
    return `A proxy answered in place of the server (status ${status}). Try again; if this happens again, check the proxy.`
  if (message === 'already_in_progress') return `The same operation is running already. ${WAIT}`
  const [, other] = /^(\w+)_in_progress$/.exec(message) ?? []
  if (RUNNING[other]) return `${RUNNING[other]} ${WAIT}`
  if (message.startsWith('options/keep is missing'))
    return 'The server has no rules for what to keep: set the option keep.'
  if (status === 401) return 'Your session has ended. Sign in again.'
  if (status === 403)
    return 'Your account may not manage backups. Ask a manager, or sign in with another account.'
  if (status === 404) return 'It no longer exists. Reload the page.'
  if (status === 413) return `It is too large: ${message}.`
  if (status === 431) return 'The lists of ids to leave alone are too long. Shorten them.'
  if (status === 507)
    return `The server has no room for the file: ${message}. Free space in its temporary directory, then try again.`
  if (code === 'DB_BACKUPS_INVALID') return `This is not a backup that can be restored: ${message}.`
  if (code === 'DB_BACKUPS_NOT_RESTORABLE' || message.startsWith('cannot restore'))
    return `${sentence(message)} Choose another backup.`
  if (status === 502) return `The database refused: ${message}. See the server’s log.`
  if (code === 'DB_BACKUPS_DATABASE_UNAVAILABLE')
    return `The database is not available (${message}). Nothing was started. Try again in a few seconds.`
  if (status === 503)
    return `${sentence(message)} Nothing was started. Try again; if this happens again, see the server’s log.`
  if (status >= 500) return `The server failed: ${message}. See its log.`
  return sentence(message)
}

/** Tells whether the server may have accepted a request: there was no answer, or a proxy sent it. */
export const unanswered = ({ status, code }) =>
  (status === 0 && code !== 'FILE_UNREADABLE') || code === 'NOT_JSON'

/** Returns a text with a capital at its start and a full stop at its end. */
export function sentence(text) {
  const trimmed = text.trim()
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1)
  return /[.!?]$/.test(first) ? first : `${first}.`
}
