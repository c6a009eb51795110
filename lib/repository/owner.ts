/** The console whose backups are meant. */
export interface Owner {
  /** Real name of the system database. */
  system: string
  /**
   * Id of the console. Absent where its databases lie on the server that keeps the backups, so that their names tell
   * consoles apart; `null` where it has none yet, and so no backup.
   */
  console?: string | null
}

/** What a header tells of the console that has made it. */
interface Origin {
  system?: unknown
  console?: unknown
}

/** Returns what a header tells of the console that makes it. */
export const originOf = ({ system, console }: Owner): { system: string; console?: string } => ({
  system,
  ...(console && { console })
})

/**
 * Returns whether a console has made a backup: names of databases on different servers may be the same. A header that
 * names no database is taken for the console's own.
 */
export function isOwnedBy(origin: Origin, { system, console }: Owner): boolean {
  if (console !== undefined) return origin.console === console
  return typeof origin.system !== 'string' || origin.system === system
}

/** Names the console that has made a backup, for people. */
export const nameOfOrigin = ({ system, console }: Origin): string =>
  typeof console === 'string'
    ? `the console "${console}"`
    : `the console with the system database "${system}"`
