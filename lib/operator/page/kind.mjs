import { beganAt } from './api.mjs'
import { bytes, dateTime } from './format.mjs'

/** Why a database was read in full, for operators. */
const WHY_FULL = {
  asked_for: 'it was asked for',
  no_base: 'there was no complete backup to build on',
  earlier_layout: 'an earlier version made the last one',
  not_in_base: 'the last one holds nothing of the database',
  chain_too_long: 'enough backups have built on each other',
  not_told: 'this database cannot tell what has changed since the last one',
  other_database: 'the database had another name',
  created_again: 'the database was deleted and created again',
  purged: 'documents were purged',
  sequence_reset: 'the database has begun to count its changes anew',
  excluded_types: 'other types of documents are left out now',
  unreadable_documents: 'the last one could not read some documents',
  mostly_changed: 'most documents had changed',
  damaged_base: 'a part of the last one is missing or damaged',
  sealed_otherwise: 'the last one is not sealed as new ones are, or its key is missing or wrong'
}

const whyFull = ({ full_reason }) => WHY_FULL[full_reason] ?? full_reason

/** Tells whether a backup is full, and why, or its base. Backups of earlier versions tell neither. */
export function kindOf({ in_progress, error, chain_length, base, dbs }) {
  if (in_progress || error || chain_length === undefined) return undefined
  const full = Object.entries(dbs).filter(([, { full_reason }]) => full_reason)
  if (base) {
    const besides = full.length > 0 ? `; ${full.map(([name]) => name).join(' and ')} in full` : ''
    return `Based on the backup of ${dateTime(beganAt(base))}${besides}`
  }
  const reasons = [...new Set(full.map(([, database]) => whyFull(database)))]
  return reasons.length > 0 ? `Full: ${reasons.join('; ')}` : 'Full'
}

/** Tells how a database was read, to be put behind its count of documents. */
export function readingOf(database) {
  const added = database.added_bytes === undefined ? '' : `, ${bytes(database.added_bytes)} added`
  return database.full_reason ? `${added}, read in full: ${whyFull(database)}` : added
}
