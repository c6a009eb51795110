import type { DatabaseRestoreCounts } from '../../types/backups.js'

/** Counts of a restore that has done nothing yet. */
export const noCounts = (): DatabaseRestoreCounts => ({
  total: 0,
  created: 0,
  changed: 0,
  unchanged: 0,
  skipped: 0,
  failed: 0,
  deleted: 0
})
