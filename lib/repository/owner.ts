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

/** The console that made a backup, as its header or the mark in its place tells. */
export interface Origin {
  system: string
  /** Absent from backups of earlier versions. */
  console?: string
}

/** An {@link Origin} as read: a stored header may hold anything in its members. */
type StoredOrigin = { [member in keyof Origin]?: unknown }

/** Returns what a stored header tells, or a mark. @param system stands for a name that it does not tell */
export const originIn = ({ system: told, console }: StoredOrigin, system: string): Origin => ({
  system: typeof told === 'string' ? told : system,
  ...(typeof console === 'string' && { console })
})

export const isSameOrigin = (one: Origin, other: Origin): boolean =>
  one.system === other.system && one.console === other.console

/**
 * Returns whether a console has made a backup: names of databases on different servers may be the same. A header that
 * names no database is taken for the console's own.
 */
export function isOwnedBy(origin: StoredOrigin, { system, console }: Owner): boolean {
  if (console !== undefined) return origin.console === console
  return typeof origin.system !== 'string' || origin.system === system
}

/** Names the console that has made a backup, for people. */
export const nameOfOrigin = ({ system, console }: StoredOrigin): string => {
  const id = typeof console === 'string' ? ` and the id "${console}"` : ''
  return `the console with the system database "${system}"${id}`
}
