import type { LogicalDatabase } from '../../types/databases.js'
import type { VerifiedDatabase, VerifyDepth, VerifyProblem, VerifyReport } from '../../types/verify.js'
import { LOGICAL_DATABASES } from '../databases.js'
import type { ScratchResult } from './scratch.js'
import type { Verification } from './verification.js'

/** How many problems a report names. */
const NAMED = 100

/** The results that a report is made of. */
interface Verified {
  id: string
  depth: VerifyDepth
  /** Milliseconds since the epoch. */
  at: number
  verification: Verification
  /** Ids of the backups that list each damaged part, by the part's id. */
  sharing: ReadonlyMap<string, string[]>
  /** Absent at other depths than `restore`. */
  scratch?: ScratchResult
}

/** Makes the report of a verification. */
export function reportOf({ id, depth, at, verification, sharing, scratch }: Verified): VerifyReport {
  const problems: VerifyProblem[] = []
  let count = scratch?.problemCount ?? 0
  for (const database of LOGICAL_DATABASES) {
    for (const finding of verification.findings[database] ?? []) {
      count++
      const backups = sharing.get(finding.id) ?? [id]
      if (problems.length < NAMED) problems.push({ database, ...finding, backups })
    }
  }
  for (const { database, id: document, reason } of scratch?.problems ?? [])
    if (problems.length < NAMED)
      problems.push({ database, part: 'document', id: document, reason, backups: [id] })
  return {
    id,
    depth,
    good: count === 0,
    complete: verification.isComplete,
    at,
    duration_ms: verification.duration,
    databases: databasesOf(verification, scratch),
    problem_count: count,
    problems
  }
}

function databasesOf({ counts }: Verification, scratch?: ScratchResult): VerifyReport['databases'] {
  const entries = Object.entries(counts) as [LogicalDatabase, VerifiedDatabase][]
  return Object.fromEntries(
    entries.map(([database, checked]) => {
      const restored = scratch?.restored[database]
      return [database, { ...checked, ...(restored !== undefined && { restored }) }]
    })
  )
}
